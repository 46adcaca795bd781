"""`prior-fast evaluate zero-shot` and `retrieval` on made-up copies of CheXpert, RSNA and SIIM-ACR."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prior_fast.cli.main import main
from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.radiology.labels import FIVE_CLASSES


@pytest.fixture(scope="module")
def data(shared_folder: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """chexpert, chexpert5x200, rsna, siim: datasets prepared from the output of `phantom`."""

    def make(root: Path) -> None:
        def prepare(layout: str, source: str, *words: str) -> None:
            paths = ["--images", str(root / f"raw-{source}"), "--out", str(root / layout), "--workers", "1"]
            assert main(["prepare", layout, *paths, *words]) == 0

        for layout, studies in (("chexpert", "48"), ("rsna", "30"), ("siim", "30")):
            out = str(root / f"raw-{layout}")
            sizes = ["--studies", studies, "--size", "96", "--seed", "2", "--workers", "1"]
            assert main(["phantom", "--layout", layout, "--out", out, *sizes]) == 0
            prepare(layout, layout)
        prepare("chexpert5x200", "chexpert", "--per-class", "3")

    return shared_folder("evaluated", make)


def evaluate(task: str, checkpoint: Path, data: Path, out: Path, *words: str) -> dict[str, Any]:
    paths = ["--checkpoint", str(checkpoint), "--data", str(data), "--out", str(out)]
    assert main(["evaluate", task, *paths, "device=cpu", *words]) == 0
    return json.loads((out / "metrics.json").read_text())


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_of_5x200_is_classified(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    found = evaluate("zero-shot", checkpoint, data / "chexpert5x200", tmp_path / "out")
    dataset = LabelledDataset.open(data / "chexpert5x200")
    assert found["data"]["selected"] == found["data"]["images"] == len(dataset)
    assert (found["data"]["part_of"], found["data"]["split"]) == ("all", "test")
    for row in read_csv(tmp_path / "out" / "predictions.csv"):
        label = dataset.labels[dataset.image_ids.index(row["image_id"])]
        assert dataset.classes[int(label.argmax())] == row["class"]
    assert found["protocol"]["prompts"]["Edema"] == ["Edema is observed"]
    for name in ("roc.png", "confusion.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_chexpert_by_the_rule_on_a_part_of_a_split(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ("--split", "train", "part_of=prior-2", "pictures=false")
    found = evaluate("zero-shot", checkpoint, data / "chexpert", tmp_path / "out", *words)
    dataset = LabelledDataset.open(data / "chexpert")
    listed = {dataset.image_ids[row] for row in dataset.split("prior-2").train}
    rows = read_csv(tmp_path / "out" / "selection.csv")
    assert {row["image_id"] for row in rows} <= listed and found["data"]["images"] == len(listed)
    for row in rows:
        label = dict(zip(dataset.classes, dataset.labels[dataset.image_ids.index(row["image_id"])]))
        uncertain = ("Atelectasis", "Edema", "Pleural Effusion")
        present = [n for n in FIVE_CLASSES if label[n] == 1 or (label[n] == -1 and n in uncertain)]
        assert present == [row["class"]]
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize("name, finding", [("rsna", "Pneumonia"), ("siim", "Pneumothorax")])
def test_one_class_present_or_not(
    name: str, finding: str, data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate("zero-shot", checkpoint, data / name, tmp_path / "out", "part_of=whole")
    dataset, metrics = LabelledDataset.open(data / name), found["metrics"]
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    share = float((dataset.labels[:, 0] == 1).mean())
    assert len(rows) == len(dataset) and metrics["positive_share"] == pytest.approx(share)
    assert metrics["accuracy"]["chance"] == pytest.approx(max(share, 1 - share))
    assert metrics["accuracy"]["value"] == pytest.approx(np.mean([row["class"] == row["predicted"] for row in rows]))
    yes, no = (np.array([float(row[f"score {answer}"]) for row in rows]) for answer in (finding, f"no {finding}"))
    true = np.array([row["class"] == finding for row in rows])
    pairs = (yes - no)[true][:, None] - (yes - no)[~true][None, :]
    assert metrics["auroc"]["value"] == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
    # The sum of two softmaxes over the two answers.
    np.testing.assert_allclose(yes + no, 2, atol=1e-9)
    assert found["protocol"]["prompts"] == {
        finding: [f"{finding} is observed"],
        f"no {finding}": [f"No {finding} is observed"],
    }
    assert found["pointing_game"]["overall"]["targets"] == int(true.sum())
    shown = capsys.readouterr().out
    assert "max_f1" in shown and "auroc" in shown


def test_glorias_convention_and_prompts_of_a_file(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ("score=gloria", "prompts_per_class=2", "pictures=false")
    found = evaluate("zero-shot", checkpoint, data / "chexpert5x200", tmp_path / "gloria", *words)
    assert "standardized" in found["protocol"]["score"] and found["protocol"]["convention"] == "gloria"
    assert all(len(prompts) == 2 for prompts in found["protocol"]["prompts"].values())
    rows = read_csv(tmp_path / "gloria" / "predictions.csv")
    for name in FIVE_CLASSES:
        scores = np.array([float(row[f"score {name}"]) for row in rows])
        assert scores.mean() == pytest.approx(0, abs=1e-9) and scores.std() == pytest.approx(1)
    (tmp_path / "p.json").write_text(json.dumps({"Pneumothorax": {"positive": ["air"], "negative": ["none", "no"]}}))
    given = (f"prompts={tmp_path / 'p.json'}", "prompt_pooling=max", "part_of=whole", "per_class=4", "pictures=false")
    found = evaluate("zero-shot", checkpoint, data / "siim", tmp_path / "file", *given)
    assert found["protocol"]["prompts"] == {"Pneumothorax": ["air"], "no Pneumothorax": ["none", "no"]}
    assert found["data"]["selected_per_class"] == {"Pneumothorax": 4, "no Pneumothorax": 4}
    # The same images again, given by their ids only, and then with their classes.
    listed = [row["image_id"] for row in read_csv(tmp_path / "file" / "selection.csv")]
    (tmp_path / "ids.txt").write_text("\n".join(listed))
    for path in (tmp_path / "ids.txt", tmp_path / "file" / "selection.csv"):
        again = evaluate(
            "zero-shot", checkpoint, data / "siim", tmp_path / "again", *given, f"image_ids={path}", "seed=5"
        )
        assert again["metrics"] == found["metrics"]


def test_a_template_in_a_file_gives_the_same_scores(store: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps({name: [f"{name} is observed"] * 2 for name in FIVE_CLASSES}))
    for out, words in (("a", ()), ("b", (f"prompts={tmp_path / 'p.json'}",))):
        evaluate("zero-shot", checkpoint, store, tmp_path / out, "pictures=false", *words)
    first, second = (read_csv(tmp_path / out / "predictions.csv") for out in ("a", "b"))
    for row, other in zip(first, second, strict=True):
        assert float(row["score Edema"]) == pytest.approx(float(other["score Edema"]), rel=1e-5)


def test_images_of_5x200_and_reports_of_another_dataset(
    data: Path, store: Path, checkpoint: Path, tmp_path: Path
) -> None:
    words = (f"reports={store}", "pictures=false")
    found = evaluate("retrieval", checkpoint, data / "chexpert5x200", tmp_path / "a", *words, "reports_per_class=2")
    metrics = found["metrics"]
    assert found["reports"]["selected"] == 10 and metrics["reports"] == 10
    assert metrics["images"] == found["data"]["selected"]
    assert "instance_level" not in metrics["image_to_text"]
    reports = read_csv(tmp_path / "a" / "selection_reports.csv")
    class_of = {row["study_id"]: row["class"] for row in reports}
    assert Counter(class_of.values()) == dict.fromkeys(FIVE_CLASSES, 2)
    rows = read_csv(tmp_path / "a" / "predictions.csv")
    for row in rows:
        assert all(row[f"class_{place}"] == class_of[row[f"report_{place}"]] for place in range(1, 6))
    first = np.mean([row["class"] == row["class_1"] for row in rows])
    assert metrics["image_to_text"]["class_level"]["precision_at_1"]["value"] == pytest.approx(first)
    # The lists that a run writes reproduce the run with any seed.
    again = (f"image_ids={tmp_path / 'a' / 'selection_images.csv'}", f"report_ids={tmp_path}/a/selection_reports.csv")
    repeated = evaluate("retrieval", checkpoint, data / "chexpert5x200", tmp_path / "b", *words, *again, "seed=9")
    assert repeated["metrics"] == metrics
    assert "named by" in repeated["protocol"]["selection_of_reports"]
    assert (tmp_path / "b" / "predictions.csv").read_text() == (tmp_path / "a" / "predictions.csv").read_text()


def test_ranks_inside_batches_and_pictures(store: Path, checkpoint: Path, tmp_path: Path) -> None:
    found = evaluate("retrieval", checkpoint, store, tmp_path / "a", "rank_within=5")
    level = found["metrics"]["image_to_text"]
    assert set(level["class_level"]) >= {"precision_at_5_within_5", "hit_at_1_within_5"}
    assert level["instance_level"]["recall_at_5_within_5"]["value"] == 1.0
    assert "batches of 5" in found["protocol"]["ranked"]
    order = [row["class"] for row in read_csv(tmp_path / "a" / "selection_images.csv")]
    assert order != sorted(order) and Counter(order) == dict.fromkeys(FIVE_CLASSES, 3)
    for name in ("retrieved-reports.png", "retrieved-images.png"):
        assert (tmp_path / "a" / name).read_bytes().startswith(b"\x89PNG")
    # Given ids keep their order, so the batches are the same ones.
    words = ("rank_within=5", f"image_ids={tmp_path / 'a' / 'selection_images.csv'}", "seed=7", "pictures=false")
    again = evaluate("retrieval", checkpoint, store, tmp_path / "b", *words)
    assert again["metrics"] == found["metrics"]


def test_batches_of_images_and_reports_of_two_datasets(
    data: Path, store: Path, checkpoint: Path, tmp_path: Path
) -> None:
    words = (f"reports={store}", "rank_within=5", "per_class=2", "pictures=false")
    found = evaluate("retrieval", checkpoint, data / "chexpert5x200", tmp_path / "a", *words)
    assert found["metrics"]["images"] == found["metrics"]["reports"] == 10
    # The same number of both, and still no studies in common.
    assert "instance_level" not in found["metrics"]["image_to_text"]
    for name in ("selection_images", "selection_reports"):
        order = [row["class"] for row in read_csv(tmp_path / "a" / f"{name}.csv")]
        assert order != sorted(order) and Counter(order) == dict.fromkeys(FIVE_CLASSES, 2)


def test_a_given_class_goes_before_the_labels(store: Path, checkpoint: Path, tmp_path: Path) -> None:
    # The first has two of the five classes by its labels.
    (tmp_path / "ids.csv").write_text("study_id,class\n50000023,Edema\n50000008,Atelectasis\n")
    words = (f"image_ids={tmp_path / 'ids.csv'}", "pictures=false")
    found = evaluate("zero-shot", checkpoint, store, tmp_path / "out", *words)
    assert [row["class"] for row in read_csv(tmp_path / "out" / "predictions.csv")] == ["Edema", "Atelectasis"]
    assert found["protocol"]["selection"].startswith("named by")
    assert found["metrics"]["auroc"]["Cardiomegaly"]["value"] is None


@pytest.mark.parametrize(
    "task, name, words, message",
    [
        ("zero-shot", "siim", ["classes=Edema,Cardiomegaly"], "the dataset has Pneumothorax alone"),
        ("zero-shot", "chexpert5x200", ["classes=Edema,Fracture"], "has no class 'Fracture'"),
        ("zero-shot", "chexpert5x200", ["--split", "validate"], "there is none"),
        ("zero-shot", "rsna", ["--split", "tset"], "is no part of a split: did you mean 'test'?"),
        ("zero-shot", "rsna", ["part_of=prior0"], "did you mean 'prior-0'?"),
        ("zero-shot", "rsna", ["score=gloia"], "score=gloia: choose from prior, gloria"),
        ("zero-shot", "rsna", ["prompt_poolin=max"], "did you mean 'prompt_pooling'?"),
        ("zero-shot", "rsna", ["negative_prompt={} {}"], "must have at most one {}"),
        ("zero-shot", "rsna", ["prompts=generated", "prompt={} seen"], "add prompts=template"),
        ("zero-shot", "rsna", ["rank_within=5"], "rank_within is a setting of retrieval, not of zero-shot"),
        ("zero-shot", "chexpert5x200", ["negative_prompt=clear"], "for datasets with one class"),
        ("retrieval", "chexpert5x200", ["score=gloria"], "score is a setting of zero-shot, not of retrieval"),
        ("retrieval", "chexpert5x200", [], "has no reports: name a dataset with reports by reports=DIR"),
        ("retrieval", "chexpert5x200", ["reports={siim}"], "siim has images and labels, but no reports"),
        ("retrieval", "chexpert5x200", ["reports={none}"], "is no prepared dataset"),
        ("retrieval", "chexpert5x200", ["reports={store}", "rank_within=4", "reports_per_class=1"], "into pairs"),
        ("retrieval", "chexpert5x200", ["reports={store}", "rank_within=1"], "nothing to rank"),
        ("retrieval", "chexpert5x200", ["reports={store}", "report_ids={ids}"], "1 of its 1 ids, 12 first, are not"),
        ("retrieval", "siim", ["reports={store}"], "has one class, Pneumothorax"),
        ("retrieval", "store", ["part_of=prior-0"], "part_of=prior-0 is for labelled datasets"),
        ("retrieval", "store", ["image_ids={several}"], "has 2 of Atelectasis"),
    ],
)
def test_wrong_use_is_one_line(
    task: str,
    name: str,
    words: list[str],
    message: str,
    data: Path,
    store: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "ids.csv").write_text("study_id\n12\n")
    # The store's last study but one has two of the five.
    (tmp_path / "several.csv").write_text("study_id\n50000023\n")
    places = {"siim": data / "siim", "store": store, "none": tmp_path / "none", "ids": tmp_path / "ids.csv"}
    places["several"] = tmp_path / "several.csv"
    for key, path in places.items():
        words = [word.replace(f"{{{key}}}", str(path)) for word in words]
    source = store if name == "store" else data / name
    paths = ["--checkpoint", str(checkpoint), "--data", str(source), "--out", str(tmp_path / "out")]
    assert main(["evaluate", task, *paths, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
