"""CheXpert 5x200: the two rules on a made-up table, and given lists."""

import json

import numpy as np
import pytest

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.radiology.labels import FIVE_CLASSES
from tests.prepare.labelled.trees import chexpert_row, info_of, rejected, run, write_chexpert, write_csv

# The labels of each row, and the finding that it shows by PRIOR's rule and by GLoRIA's rule.
CASES = [
    ({"Atelectasis": 1.0}, "Atelectasis", "Atelectasis"),
    ({"Atelectasis": -1.0}, "Atelectasis", None),  # an uncertain label of its own
    ({"Cardiomegaly": -1.0}, None, None),
    ({"Cardiomegaly": 1.0, "Consolidation": -1.0}, "Cardiomegaly", None),
    ({"Cardiomegaly": 1.0, "Edema": -1.0}, None, None),
    ({"Cardiomegaly": 1.0, "Support Devices": 1.0}, "Cardiomegaly", None),
    ({"Cardiomegaly": 1.0, "Edema": 0.0, "Fracture": 0.0}, "Cardiomegaly", "Cardiomegaly"),
    ({"Consolidation": 1.0, "No Finding": 1.0}, "Consolidation", "Consolidation"),
    ({"Edema": 1.0, "Pleural Effusion": 1.0}, None, None),
    ({"Edema": 1.0, "Pneumonia": -1.0}, "Edema", None),
    ({"Edema": -1.0, "Lung Opacity": 1.0}, "Edema", None),
    ({"Pleural Effusion": 1.0}, "Pleural Effusion", "Pleural Effusion"),
    ({"Pneumonia": 1.0}, None, None),
    ({}, None, None),
]


def path_of(number: int) -> str:
    return f"train/patient{number:05d}/study1/view1_frontal.jpg"


@pytest.fixture
def root(tmp_path):
    rows = [chexpert_row(f"CheXpert-v1.0-small/{path_of(n)}", **labels) for n, (labels, *_) in enumerate(CASES)]
    lateral = "CheXpert-v1.0-small/train/patient00099/study1/view2_lateral.jpg"
    return write_chexpert(tmp_path / "in", [*rows, chexpert_row(lateral, "Lateral", Atelectasis=1.0)])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.parametrize(("rule", "place"), [("prior", 1), ("gloria", 2)])
def test_each_rule_on_each_case(root, out, rule, place):
    assert run("chexpert5x200", root, out, "--rule", rule) == 0
    expected = {path_of(n): case[place] for n, case in enumerate(CASES) if case[place]}
    dataset = LabelledDataset.open(out)
    assert dataset.classes == FIVE_CLASSES and (dataset.labels.sum(axis=1) == 1).all()
    shown = {name: FIVE_CLASSES[row.argmax()] for name, row in zip(dataset.image_ids, dataset.labels)}
    assert shown == expected
    assert list(dataset.labels.argmax(axis=1)) == sorted(dataset.labels.argmax(axis=1))
    info = info_of(out)
    assert info["rule"] == rule and sum(info["of_the_rule"].values()) == len(expected)
    assert any("not 200; all were taken" in note for note in info["notes"])
    split = dataset.split("all")
    assert len(split.test) == len(dataset) and not len(split.train) and not len(split.validate)


def test_the_drawn_list_is_written_and_draws_the_same_again(root, out, tmp_path):
    assert run("chexpert5x200", root, out) == 0
    entries = json.loads((out / "list.json").read_text())
    for row, entry in entries.items():
        assert entry["image_path"] == path_of(int(row)) and sorted(entry["label"]) == [0, 0, 0, 0, 1]
    assert run("chexpert5x200", root, tmp_path / "again", "--list", out / "list.json") == 0
    first, second = LabelledDataset.open(out), LabelledDataset.open(tmp_path / "again")
    assert first.image_ids == second.image_ids and np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.images, second.images)
    assert not (tmp_path / "again" / "list.json").exists()


def test_seeds_draw_others_and_repeat(tmp_path):
    rows = [
        chexpert_row(path_of(5 * n + k), **{name.replace(" ", "_"): 1.0})
        for n in range(12)
        for k, name in enumerate(FIVE_CLASSES)
    ]
    root = write_chexpert(tmp_path / "in", rows)
    drawn = {}
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run("chexpert5x200", root, tmp_path / out, "--per-class", 4, "--seed", seed) == 0
        drawn[out] = LabelledDataset.open(tmp_path / out).image_ids
        assert len(drawn[out]) == 20
    assert drawn["a"] == drawn["b"] != drawn["c"]
    # As pandas' sample with random_state=0: the first 4 of RandomState(0)'s permutation of 12.
    expected = [path_of(5 * n) for n in np.random.RandomState(0).permutation(12)[:4]]
    assert drawn["a"][:4] == expected


def test_a_csv_list(root, out, tmp_path):
    given = tmp_path / "list.csv"
    rows = [[f"CheXpert-v1.0/{path_of(3)}", 0, 1, "", 0, 0.0], [path_of(0), 1.0, "", "", "", ""]]
    write_csv(given, ("Path", *FIVE_CLASSES), rows)
    assert run("chexpert5x200", root, out, "--list", given) == 0
    dataset = LabelledDataset.open(out)
    assert dataset.image_ids == [path_of(3), path_of(0)]
    assert dataset.labels.tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_train_csv_is_not_needed_for_a_list_and_missing_images_are_named(root, out, tmp_path):
    (root / "train.csv").unlink()
    entries = {str(n): {"image_path": path_of(n), "label": [0, 0, 1, 0, 0]} for n in (2, 500)}
    (tmp_path / "list.json").write_text(json.dumps(entries))
    assert run("chexpert5x200", root, out, "--list", tmp_path / "list.json") == 0
    assert LabelledDataset.open(out).image_ids == [path_of(2)]
    assert rejected(out) == [(path_of(500), "there is no such file")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not of the form"),
        ("[]", "is not of the form"),
        ('{"0": {"image_path": "train/patient1/a.jpg"}}', "is not of the form"),
        ('{"0": {"image_path": "train/patient1/a.jpg", "label": [1, 1, 0, 0, 0]}}', "not one 1 and four 0"),
        ('{"0": {"image_path": "a.jpg", "label": [1, 0, 0, 0, 0]}}', "'a.jpg'"),
        ("{}", "names no image"),
    ],
)
def test_lists_that_cannot_be_used(root, out, tmp_path, text, said, capsys):
    (tmp_path / "list.json").write_text(text)
    assert run("chexpert5x200", root, out, "--list", tmp_path / "list.json") == 2
    message = capsys.readouterr().err
    assert said in message and "list.json" in message


def test_options_that_do_not_go_together(root, out, tmp_path, capsys):
    assert run("chexpert5x200", root, out, "--list", tmp_path / "absent.json") == 2
    assert "absent.json can't be read" in capsys.readouterr().err
    assert run("chexpert5x200", root, out, "--list", tmp_path / "absent.json", "--seed", 3) == 2
    assert "--seed" in capsys.readouterr().err
    assert run("chexpert5x200", root, out, "--per-class", 0) == 2
    assert "--per-class" in capsys.readouterr().err
