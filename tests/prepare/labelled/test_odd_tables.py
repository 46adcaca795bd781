"""Tables of labels with repeated files, unusual columns and words, and odd parts of the public sets."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prior_fast.cli.main import main
from prior_fast.data.labelled_dataset import LabelledDataset
from tests.prepare.labelled.trees import (
    chexpert_row,
    info_of,
    raw_dicom,
    rejected,
    run,
    write_chexpert,
    write_csv,
    write_rsna,
    xray,
)
from tests.prepare.studies.tables import save_xray

COUNT = 12
NAMES = [f"x{number}.png" for number in range(COUNT)]


@pytest.fixture
def prepare(tmp_path):
    """Writes a table, prepares it, and returns the dataset; None if the command failed."""
    for number, name in enumerate(NAMES):
        save_xray(tmp_path / "images/sub" / name, number, (100, 50))

    def prepare(header, rows, *words) -> LabelledDataset | None:
        write_csv(tmp_path / "t.csv", header, rows)
        given = ["--table", tmp_path / "t.csv", "--images", tmp_path / "images", "--out", tmp_path / "out", *words]
        code = main(["prepare", "labels", "--workers", "1", *map(str, given)])
        return LabelledDataset.open(tmp_path / "out") if code == 0 else None

    return prepare


def test_a_file_under_two_names_is_one_image(tmp_path, prepare):
    rows = [*((name, n % 2, "train") for n, name in enumerate(NAMES)), ("sub/x0.png", 1, "test")]
    dataset = prepare(("image", "TB", "split"), rows)
    assert dataset.image_ids == NAMES
    assert rejected(tmp_path / "out") == [("sub/x0.png", "the file is that of x0.png, too: give both rows one name")]


def test_box_cells_with_words_for_blank(tmp_path, prepare):
    rows = [(name, *(["NaN"] * 4 if n % 2 else [10, 5, 20, 10]), 1 - n % 2) for n, name in enumerate(NAMES)]
    dataset = prepare(("image", "x", "y", "width", "height", "Opacity"), rows, "--strict")
    assert [len(dataset.boxes(row)) for row in range(COUNT)] == [1, 0] * (COUNT // 2)
    assert rejected(tmp_path / "out") == []


def test_uncertain_is_not_lost_where_rows_are_joined(prepare):
    rows = [("x0.png", 1, 1, 9, 9, -1, 1), ("x0.png", 20, 1, 9, 9, 0, 1)]
    rows += [(name, "", "", "", "", 0, 0) for name in NAMES[1:]]
    dataset = prepare(("image", "x", "y", "width", "height", "A", "B"), rows)
    assert dataset.labels[0].tolist() == [-1, 1] and dataset.box_classes(0).tolist() == [1, 1]


def test_facts_of_the_patient_and_folds_are_no_classes(tmp_path, prepare, capsys):
    rows = [(n, name, "F", n % 2, "1", n % 2) for n, name in enumerate(NAMES)]
    dataset = prepare(("Unnamed: 0", "Image ID", "PatientSex", "Fold", "Age-Group", "TB"), rows)
    assert dataset.classes == ("TB",) and dataset.split_names[0] == "prior-0"
    assert "column Fold names no part (train, validate, test) and was not used" in capsys.readouterr().err


def test_names_of_classes_in_several_cases_are_one_class(prepare):
    dataset = prepare(("image", "label"), [(n, ("TB", "tb", "NORMAL")[k % 3]) for k, n in enumerate(NAMES)])
    assert dataset.classes == ("TB",) and dataset.labels[:, 0].tolist() == [1, 1, 0] * (COUNT // 3)


def test_the_own_split_says_whom_it_shares_and_leaves_out(tmp_path, prepare):
    rows = [(name, n % 2, f"P{n // 2}", ("train", "test", "")[n % 3]) for n, name in enumerate(NAMES)]
    assert prepare(("image", "TB", "patient", "split"), rows) is not None
    notes = info_of(tmp_path / "out")["notes"]
    assert "4 image(s) name no part and are not in own" in notes
    assert "the split own has 2 patient(s) in more than one part" in notes


def test_the_name_of_the_own_split_is_taken(tmp_path, prepare, capsys):
    assert prepare(("image", "TB"), [(name, 1) for name in NAMES], "--split-lists", f"own={tmp_path}") is None
    assert "own is a split that this command draws" in capsys.readouterr().err


def test_no_finding_does_not_count_as_positive(prepare):
    rows = [
        (f"x{n}.png", int(n != 5), int(n == 5), "test" if n > 8 else "val" if n > 6 else "train") for n in range(12)
    ]
    dataset = prepare(("image", "No Finding", "TB", "split"), rows)
    (row,) = dataset.split("own", 1).train
    assert dataset.image_ids[row] == "x5.png"


def write_vindr(root: Path) -> None:
    """The tables as PhysioNet has them: one class is spelled in another way in the test table."""
    ids = [f"{number:032x}" for number in range(6)]
    for number, name in enumerate(ids):
        raw_dicom(root / ("train" if number < 4 else "test") / f"{name}.dicom", xray(number))
    (root / "annotations").mkdir()
    labels = [(n, name, f"R{r}", 1, number % 2, 0) for number, name in enumerate(ids[:4]) for n, r in enumerate("123")]
    header = ("Unnamed: 0", "image_id", "rad_id", "ILD", "Other diseases", "No finding")
    write_csv(root / "annotations/image_labels_train.csv", header, labels)
    header = ("image_id", "ILD", "Other disease", "No finding")
    write_csv(root / "annotations/image_labels_test.csv", header, [(ids[4], 0, 1, 0), (ids[5], 1, 0, 0)])
    corners = ("class_name", "x_min", "y_min", "x_max", "y_max")
    marks = [(name, "R1", "ILD", 1, 1, 9, 9) for name in ids[:4]]
    write_csv(root / "annotations/annotations_train.csv", ("image_id", "rad_id", *corners), marks)
    write_csv(root / "annotations/annotations_test.csv", ("image_id", *corners), [(ids[5], "ILD", 1, 1, 9, 9)])


def test_vindr_joins_the_two_spellings_of_a_class(tmp_path):
    write_vindr(tmp_path / "in")
    assert run("vindr", tmp_path / "in", tmp_path / "out") == 0
    dataset = LabelledDataset.open(tmp_path / "out")
    assert dataset.classes == ("ILD", "Other diseases")
    assert dataset.labels.tolist() == [[1, 0], [1, 1], [1, 0], [1, 1], [0, 1], [1, 0]]


def test_kaggles_vindr_has_the_order_of_its_table_in_every_run(tmp_path):
    names = [f"{7 * number % 12:032x}" for number in range(12)]
    for number, name in enumerate(names):
        raw_dicom(tmp_path / "in/train" / f"{name}.dicom", xray(number))
    header = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")
    write_csv(tmp_path / "in/train.csv", header, [(name, "ILD", 5, "R1", 1, 1, 9, 9) for name in names])
    for seed in "12":
        words = ["vindr", "--images", tmp_path / "in", "--out", tmp_path / seed, "--workers", 1]
        command = [sys.executable, "-m", "prior_fast.cli.main", "prepare", *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"})
        assert LabelledDataset.open(tmp_path / seed).image_ids == [f"train/{name}" for name in names]


@pytest.mark.parametrize("size", [1024, 256])
@pytest.mark.parametrize("label", ["Effusion", "Effusions"])
def test_boxes_of_nih14_fit_smaller_copies_too(tmp_path, size, label, capsys):
    root = tmp_path / "nih"
    for number, name in enumerate(NAMES):
        save_xray(root / "images" / name, number, (size, size))
    entries = [(name, "Effusion", number + 1, "PA") for number, name in enumerate(NAMES)]
    write_csv(root / "Data_Entry_2017.csv", ("Image Index", "Finding Labels", "Patient ID", "View Position"), entries)
    (root / "train_val_list.txt").write_text("\n".join(NAMES[:8]), encoding="utf-8")
    (root / "test_list.txt").write_text("\n".join(NAMES[8:]), encoding="utf-8")
    header = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")
    write_csv(root / "BBox_List_2017.csv", header, [(NAMES[0], label, 512, 256, 128.5, 64, "", "", "")])
    code = run("nih14", root, tmp_path / "out")
    if label == "Effusions":
        assert code == 2 and "BBox_List_2017.csv, line 2: 'Effusions' is none of Atelectasis" in capsys.readouterr().err
    else:
        expected = np.array([[512, 256, 128.5, 64]]) * 224 / 1024
        np.testing.assert_allclose(LabelledDataset.open(tmp_path / "out").boxes(0), expected, rtol=1e-6)


def test_words_for_labels_in_the_tables_of_rsna_and_chexpert(tmp_path, capsys):
    blank = ["None"] * 4
    root = write_rsna(tmp_path / "rsna", [("a", 1.0, 1.0, 20.0, 20.0, "True"), ("b", *blank, "False")])
    assert run("rsna", root, tmp_path / "out-rsna") == 0
    assert LabelledDataset.open(tmp_path / "out-rsna").labels[:, 0].tolist() == [1, 0]
    path = "CheXpert-v1.0-small/train/patient{:05d}/study1/view1_frontal.jpg"
    rows = [chexpert_row(path.format(n), "frontal", Edema=("yes", "False", "uncertain", "N/A")[n]) for n in range(4)]
    root = write_chexpert(tmp_path / "chexpert", rows)
    assert run("chexpert", root, tmp_path / "out-chexpert") == 0
    dataset = LabelledDataset.open(tmp_path / "out-chexpert")
    np.testing.assert_array_equal(dataset.labels[:4, dataset.classes.index("Edema")], [1, 0, -1, np.nan])
    table = root / "train.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("uncertain", "tall"), encoding="utf-8")
    assert run("chexpert", root, tmp_path / "out-tall") == 2
    assert "train.csv, line 4: 'Edema' is 'tall', not a label" in capsys.readouterr().err
