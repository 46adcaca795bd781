"""CheXpert's tables and trees, and the splits made of them."""

import numpy as np
import pytest

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.radiology.labels import CHEXPERT_TABLE_LABELS, FIVE_CLASSES
from tests.prepare.labelled.trees import (
    CHEXPERT_HEADER,
    chexpert_row,
    info_of,
    rejected,
    run,
    write_chexpert,
    write_csv,
)


def path_of(patient: int, study: int = 1, view: int = 1, side: str = "frontal", prefix="CheXpert-v1.0-small/") -> str:
    return f"{prefix}train/patient{patient:05d}/study{study}/view{view}_{side}.jpg"


def many(patients: int, studies: int = 2) -> list:
    """Rows of patients whose findings vary."""
    rows = []
    for patient in range(1, patients + 1):
        for study in range(1, studies + 1):
            label = FIVE_CLASSES[(patient + study) % 5].replace(" ", "_")
            rows.append(chexpert_row(path_of(patient, study), **{label: 1.0}))
    return rows


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.parametrize("prefix", ["CheXpert-v1.0-small/", "CheXpert-v1.0/", ""])
def test_labels_are_kept_raw_and_paths_lose_their_prefix(tmp_path, out, prefix):
    rows = [
        chexpert_row(path_of(1, prefix=prefix), Cardiomegaly=1.0, Edema=-1.0, Consolidation=0.0),
        chexpert_row(path_of(1, view=2, side="lateral", prefix=prefix), "Lateral", Cardiomegaly=1.0),
        chexpert_row(path_of(2, prefix=prefix), Support_Devices=1.0),
    ]
    assert run("chexpert", write_chexpert(tmp_path / "in", rows), out) == 0
    dataset = LabelledDataset.open(out, verify="full")
    names = ["train/patient00001/study1/view1_frontal.jpg", "train/patient00002/study1/view1_frontal.jpg"]
    assert dataset.image_ids == [*names, "valid/patient64541/study1/view1_frontal.jpg"]
    assert dataset.patient_ids == ["patient00001", "patient00002", "patient64541"]
    assert dataset.classes == CHEXPERT_TABLE_LABELS and dataset.name == "chexpert"
    first = dict(zip(CHEXPERT_TABLE_LABELS, dataset.labels[0]))
    assert (first["Cardiomegaly"], first["Edema"], first["Consolidation"]) == (1, -1, 0)
    assert np.isnan(first["Pneumonia"]) and dataset.labels[1, CHEXPERT_TABLE_LABELS.index("Support Devices")] == 1
    assert not dataset.has_boxes and not dataset.has_masks
    assert "1 lateral image(s) were not read" in info_of(out)["notes"]


@pytest.mark.parametrize("folder", ["CheXpert-v1.0-small", "CheXpert-v1.0", "anything"])
def test_the_parent_folder_is_accepted_too(tmp_path, out, folder, capsys):
    write_chexpert(tmp_path / "in" / folder, many(3))
    code = run("chexpert", tmp_path / "in", out)
    assert code == (2 if folder == "anything" else 0)
    if code:
        assert "there is no train.csv in it" in capsys.readouterr().err and not out.exists()


def test_splits_keep_patients_together_and_mgca_leaves_5x200_out(tmp_path, out):
    # With 40 images per finding, drawing 200 takes all of them, so all images of the gloria rule are excluded.
    rows = many(30) + [chexpert_row(path_of(100 + n), Pneumonia=1.0) for n in range(20)]
    assert run("chexpert", write_chexpert(tmp_path / "in", rows), out) == 0
    dataset = LabelledDataset.open(out)
    assert dataset.split_names == (*(f"prior-{seed}" for seed in range(5)), "mgca")
    patients = np.array(dataset.patient_ids)
    for name in dataset.split_names:
        split = dataset.split(name)
        parts = [set(patients[rows]) for rows in (split.train, split.validate, split.test)]
        assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
        in_test = {dataset.image_ids[row].split("/")[0] for row in split.test}
        assert in_test == ({"valid"} if name == "mgca" else {"train"})
    mgca = dataset.split("mgca")
    pneumonia = dataset.labels[:, CHEXPERT_TABLE_LABELS.index("Pneumonia")] == 1
    assert pneumonia[mgca.train].all() and pneumonia[mgca.validate].all()
    assert (len(mgca.train), len(mgca.validate), len(mgca.test)) == (16, 4, 1)
    assert len(dataset.split("mgca", 1).train) == 1


@pytest.mark.parametrize("kind", ["list.txt", "list.csv", "list.json"])
def test_a_list_of_ones_own_is_excluded(tmp_path, out, kind, capsys):
    rows = many(10)
    given = tmp_path / kind
    if kind == "list.txt":
        given.write_text(f"{path_of(3)}\n{path_of(4)}\n\n")
    elif kind == "list.csv":
        write_csv(given, CHEXPERT_HEADER, [chexpert_row(path_of(n)) for n in (3, 4)])
    else:
        entries = (f'"{n}": {{"image_path": "{path_of(n, prefix="")}", "label": [1,0,0,0,0]}}' for n in (3, 4))
        given.write_text(f"{{{', '.join(entries)}}}")
    assert run("chexpert", write_chexpert(tmp_path / "in", rows), out, "--exclude", given) == 0
    dataset = LabelledDataset.open(out)
    split = dataset.split("mgca")
    used = {dataset.image_ids[row] for row in (*split.train, *split.validate)}
    assert len(used) == 18 and not used & {path_of(n, prefix="") for n in (3, 4)}
    assert kind in info_of(out)["splits"]["mgca"]["rule"]
    given.with_suffix(".txt").write_text("somewhere/else.jpg\n")
    assert run("chexpert", tmp_path / "in", tmp_path / "out2", "--exclude", given.with_suffix(".txt")) == 2
    assert "somewhere/else.jpg" in capsys.readouterr().err


def test_broken_images_are_named_and_the_rest_is_prepared(tmp_path, out, capsys):
    root = write_chexpert(tmp_path / "in", many(5))
    (root / path_of(1, prefix="")).write_bytes(b"")
    (root / path_of(2, prefix="")).unlink()
    assert run("chexpert", root, out) == 0
    assert rejected(out) == [
        (path_of(1, prefix=""), "the file is empty"),
        (path_of(2, prefix=""), "there is no such file"),
    ]
    dataset = LabelledDataset.open(out)
    assert len(dataset) == 9 and len(dataset.images) == 9
    capsys.readouterr()
    assert run("chexpert", root, tmp_path / "strict", "--strict") == 1
    assert "--strict: train/patient00001" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "strict.partial"]


def test_two_runs_write_the_same_bytes_with_any_number_of_workers(tmp_path):
    root = write_chexpert(tmp_path / "in", many(12))
    assert run("chexpert", root, tmp_path / "a") == 0
    assert run("chexpert", root, tmp_path / "b", "--workers", 2) == 0
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 30
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "train.csv is empty"),
        (lambda text: text.splitlines()[0] + "\n", "no row below its header"),
        (
            lambda text: text.replace("Pleural Effusion", "Pleural Efusion"),
            "'Pleural Effusion' (is it 'Pleural Efusion'?)",
        ),
        (lambda text: text.replace(",1.0", ",2.0", 1), "is 2.0, not 1, 0, -1 or empty"),
        (lambda text: text.replace("train/patient00001", "patient00001"), "line 2: Path"),
        (lambda text: text + text.splitlines()[1] + "\n", "is there twice"),
        (lambda text: text.replace("Frontal,", "Front,"), "'Front'"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, out, change, said, capsys):
    root = write_chexpert(tmp_path / "in", many(3))
    table = root / "train.csv"
    table.write_text(change(table.read_text()))
    assert run("chexpert", root, out) == 2
    message = capsys.readouterr().err
    assert said in message and "train.csv" in message and message.count("\n") == 1
    assert not out.exists()


def test_wrong_folders_and_places(tmp_path, out, capsys):
    root = write_chexpert(tmp_path / "in", many(2))
    assert run("chexpert", tmp_path / "nowhere", out) == 2
    assert "there is no such folder" in capsys.readouterr().err
    (root / "valid.csv").unlink()
    assert run("chexpert", root, out) == 2
    assert "valid.csv" in capsys.readouterr().err
    assert run("chexpert", root, root) == 2
    assert "is not empty" in capsys.readouterr().err
    assert run("chexpert", root, root / "train.csv") == 2
    assert "is a file" in capsys.readouterr().err
