"""NIH ChestX-ray14, VinDr-CXR, ChestX-Det10 and COVIDx in small folders of their true forms."""

import json

import numpy as np
import pytest

from prior_fast.cli.main import main
from prior_fast.data.labelled_dataset import LabelledDataset
from tests.prepare.labelled.trees import raw_dicom, rejected, run, write_csv, xray
from tests.prepare.studies.tables import save_xray

ENTRY = (
    *("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position"),
    *("OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"),
)


def test_nih14(tmp_path):
    root = tmp_path / "nih"
    names = [f"{n // 2:08d}_{n % 2:03d}.png" for n in range(24)]
    labels = ["No Finding", "Effusion|Infiltration", "Pleural_Thickening"]
    for number, name in enumerate(names):
        save_xray(root / f"images_{number // 8 + 1:03d}/images/{name}", number, (100, 100))
    rows = [(name, labels[n % 3], 0, n // 2 + 1, 50, "M", "PA", 2500, 2000, 0.1, 0.1) for n, name in enumerate(names)]
    write_csv(root / "Data_Entry_2017_v2020.csv", ENTRY, rows)
    (root / "train_val_list.txt").write_text("\n".join(names[:16]) + "\n", encoding="utf-8")
    (root / "test_list.txt").write_text("\n".join(names[16:23]) + "\n", encoding="utf-8")
    boxes = [(names[1], "Infiltrate", 10.5, 20, 30, 40, "", "", ""), (names[1], "Effusion", 1, 2, 3, 4, "", "", "")]
    write_csv(
        root / "BBox_List_2017.csv", ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""), boxes
    )
    assert run("nih14", root, tmp_path / "out") == 0
    dataset = LabelledDataset.open(tmp_path / "out", verify="full")
    assert len(dataset) == 23 and len(dataset.classes) == 14
    present = [dataset.classes[c] for c in np.flatnonzero(dataset.labels[1])]
    assert present == ["Effusion", "Infiltration"] and not dataset.labels[0].any()
    assert dataset.patient_ids[5] == "3" and dataset.split_names[0] == "official"
    assert [dataset.classes[c] for c in dataset.box_classes(1)] == ["Infiltration", "Effusion"]
    np.testing.assert_allclose(dataset.boxes(1)[0], np.array([10.5, 20, 30, 40]) * 224 / 1024, rtol=1e-6)
    split = dataset.split("official")
    assert [dataset.image_ids[row] for row in split.test] == names[16:23]
    assert len(split.train) + len(split.validate) == 16 and len(split.validate)
    assert rejected(tmp_path / "out") == [(names[23], "in neither train_val_list.txt nor test_list.txt")]


VINDR = ("Aortic enlargement", "Nodule/Mass", "Pneumonia", "No finding")


def vindr(root):
    """Three readers for each training image, one consensus for each test image."""
    labels, marks = [], []
    for number in range(9):
        path = root / f"train/{number:032x}.dicom"
        path.parent.mkdir(parents=True, exist_ok=True)
        raw_dicom(path, xray(number, 200, 100))
        for reader in range(3):
            own = (number % 3 > reader, number % 2 and reader == 1, number == 5 and reader > 0, number % 3 == 0)
            labels.append((path.stem, f"R{reader}", *map(int, own)))
            if own[0]:
                marks.append((path.stem, f"R{reader}", VINDR[0], 10 + reader, 20, 50 + reader, 80))
            if number % 3 == 0:
                marks.append((path.stem, f"R{reader}", "No finding", "", "", "", ""))
    tests, test_marks = [], []
    for number in range(9, 12):
        path = root / f"test/{number:032x}.dicom"
        path.parent.mkdir(parents=True, exist_ok=True)
        raw_dicom(path, xray(number, 200, 100))
        tests.append((path.stem, 0, 1, 0, 0))
        test_marks.append((path.stem, VINDR[1], 1, 2, 11, 22))
    (root / "annotations").mkdir()
    write_csv(root / "annotations/image_labels_train.csv", ("image_id", "rad_id", *VINDR), labels)
    write_csv(root / "annotations/image_labels_test.csv", ("image_id", *VINDR), tests)
    corners = ("class_name", "x_min", "y_min", "x_max", "y_max")
    write_csv(root / "annotations/annotations_train.csv", ("image_id", "rad_id", *corners), marks)
    write_csv(root / "annotations/annotations_test.csv", ("image_id", *corners), test_marks)
    return marks


@pytest.mark.parametrize("readers", ["majority", "any", "all"])
def test_vindr(tmp_path, readers):
    root = tmp_path / "vindr"
    marks = vindr(root)
    assert run("vindr", root, tmp_path / "out", "--readers", readers) == 0
    dataset = LabelledDataset.open(tmp_path / "out")
    assert dataset.classes == ("Aortic enlargement", "Nodule/Mass", "Pneumonia")
    votes = np.array([[n % 3, n % 2, 2 * (n == 5)] for n in range(9)])
    wanted = {"majority": votes >= 2, "any": votes >= 1, "all": votes == 3}[readers]
    np.testing.assert_array_equal(dataset.labels[:9], wanted)
    np.testing.assert_array_equal(dataset.labels[9:], [[0, 1, 0]] * 3)
    split = dataset.split("official")
    assert split.test.tolist() == [9, 10, 11]
    scale = np.array([224 / 100, 224 / 200] * 2)
    np.testing.assert_allclose(dataset.boxes(9), [np.array([1, 2, 10, 20]) * scale], rtol=1e-6)
    if readers == "majority":
        # Image 2: two readers' boxes, one pixel apart, are one box.
        np.testing.assert_allclose(dataset.boxes(2), [np.array([10.5, 20, 40, 60]) * scale], rtol=1e-6)
        assert dataset.box_classes(2).tolist() == [0] and len(dataset.boxes(1)) == 0
    kaggle = tmp_path / "kaggle"
    kaggle.mkdir()
    (root / "train").rename(kaggle / "train")
    write_csv(
        kaggle / "train.csv",
        ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"),
        [(image, label, 0, reader, *box) for image, reader, label, *box in marks],
    )
    assert run("vindr", kaggle, tmp_path / "k", "--readers", readers) == 0
    other = LabelledDataset.open(tmp_path / "k")
    assert other.classes == ("Aortic enlargement",)
    present = {name.removeprefix("train/"): label for name, (label,) in zip(other.image_ids, other.labels.tolist())}
    assert set(present) == {image for image, *_ in marks}
    # Kaggle's table has a row only for a reader who marked something: all readers of images 1 and 2 marked them.
    assert present[f"{1:032x}"] == present[f"{2:032x}"] == 1 and present[f"{0:032x}"] == 0


def test_chestxdet10(tmp_path):
    root = tmp_path / "det10"
    for part, numbers in (("train", range(8)), ("test", range(8, 12))):
        entries = []
        for number in numbers:
            save_xray(root / f"{part}_data/{number}.png", number, (100, 100))
            findings = ["Effusion", "Effusion", "Mass"][: number % 4]
            boxes = [[10 * place, 5, 10 * place + 8, 25] for place in range(len(findings))]
            entries.append({"file_name": f"{number}.png", "syms": findings, "boxes": boxes})
        (root / f"{part}.json").write_text(json.dumps(entries), encoding="utf-8")
    assert run("chestxdet10", root, tmp_path / "out") == 0
    dataset = LabelledDataset.open(tmp_path / "out")
    assert [dataset.classes[c] for c in dataset.box_classes(3)] == ["Effusion", "Effusion", "Mass"]
    np.testing.assert_allclose(dataset.boxes(3)[1], np.array([10, 5, 8, 20]) * 224 / 1024, rtol=1e-6)
    assert dataset.labels[:, dataset.classes.index("Mass")].tolist() == [0, 0, 0, 1] * 3
    assert dataset.split("official").test.tolist() == [8, 9, 10, 11]
    (root / "test.json").write_text('[{"file_name": "8.png", "syms": ["Mass"], "boxes": []}]', encoding="utf-8")
    assert run("chestxdet10", root, tmp_path / "second") == 2


@pytest.mark.parametrize("three", [False, True])
def test_covidx(tmp_path, three):
    root = tmp_path / "covidx"
    labels = ("normal", "pneumonia", "COVID-19") if three else ("positive", "negative")
    for part, numbers in (("train", range(12)), ("test", range(12, 16))):
        lines = []
        for number in numbers:
            save_xray(root / f"{part}/{number}.jpg", number)
            lines.append(
                f"{'ANON 7' if number == 1 else number // 2} {number}.jpg {labels[number % len(labels)]} cohen"
            )
        (root / f"{part}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert run("covidx", root, tmp_path / "out") == 0
    dataset = LabelledDataset.open(tmp_path / "out")
    if three:
        assert dataset.classes == labels and dataset.labels[:3].tolist() == np.eye(3).tolist()
    else:
        assert dataset.classes == ("COVID-19",) and dataset.labels[:3, 0].tolist() == [1, 0, 1]
    assert dataset.patient_ids[1] == "ANON 7"
    assert dataset.split("official").test.tolist() == [12, 13, 14, 15]


def test_a_missing_list_is_named(tmp_path, capsys):
    (tmp_path / "covidx").mkdir()
    assert main(["prepare", "covidx", "--images", str(tmp_path / "covidx"), "--out", str(tmp_path / "out")]) == 2
    assert "there is no train.txt or train_split.txt in it" in capsys.readouterr().err
