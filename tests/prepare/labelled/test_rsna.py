"""RSNA stage 2: rows joined to images, boxes cut and dropped, files missing and broken."""

import numpy as np
import pytest

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.radiology.masks import box_mask
from tests.prepare.labelled.trees import info_of, raw_dicom, rejected, run, write_csv, write_rsna, xray

# On an image of 100 columns and 80 rows.
ROWS = [
    ("b-two", 10.0, 8.0, 30.0, 40.0, 1),
    ("a-negative", "", "", "", "", 0),
    ("b-two", 60.0, 20.0, 20.0, 20.0, 1),
    ("c-crossing", 90.0, -4.0, 30.0, 14.0, 1),
    ("c-crossing", 200.0, 10.0, 10.0, 10.0, 1),
    ("c-crossing", 20.0, 10.0, 0.0, 10.0, 1),
    ("d-tiny", 50.0, 40.0, 0.1, 0.1, 1),
]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def prepared(tmp_path, out) -> LabelledDataset:
    assert run("rsna", write_rsna(tmp_path / "in", ROWS), out) == 0
    return LabelledDataset.open(out, verify="full")


def test_rows_of_one_patient_are_the_boxes_of_its_image(prepared):
    assert prepared.image_ids == prepared.patient_ids == ["a-negative", "b-two", "c-crossing", "d-tiny"]
    assert prepared.classes == ("Pneumonia",) and prepared.has_boxes and prepared.has_masks
    assert prepared.labels[:, 0].tolist() == [0, 1, 1, 1]
    expected = np.array([[10 * 2.24, 8 * 2.8, 30 * 2.24, 40 * 2.8], [60 * 2.24, 20 * 2.8, 20 * 2.24, 20 * 2.8]])
    assert np.allclose(prepared.boxes(1), expected, atol=1e-5)
    assert np.array_equal(prepared.mask(1), box_mask(*expected[0]) | box_mask(*expected[1]))
    assert prepared.boxes(0).shape == (0, 4) and not prepared.mask(0).any()


def test_boxes_are_cut_at_the_edge_and_dropped_outside(prepared, out):
    assert np.allclose(prepared.boxes(2), [[90 * 2.24, 0, 10 * 2.24, 10 * 2.8]], atol=1e-5)
    file = "stage_2_train_images/c-crossing.dcm"
    assert rejected(out) == [
        (file, "box 20 10 0 10 is empty or outside 100 x 80"),
        (file, "box 200 10 10 10 is empty or outside 100 x 80"),
    ]


def test_a_tiny_box_keeps_a_pixel(prepared, out):
    assert np.argwhere(prepared.mask(3)).tolist() == [[int(40.05 * 2.8), int(50.05 * 2.24)]]
    assert any("became the pixel at its own center: 1 image" in note for note in info_of(out)["notes"])


def test_files_and_rows_that_do_not_fit(tmp_path, out, capsys):
    rows = [*ROWS[:2], ("both", "", "", "", "", 0), ("both", 1, 1, 2, 2, 1), ("boxless", "", "", "", "", 1)]
    root = write_rsna(tmp_path / "in", [*rows, ("gone", "", "", "", "", 0), ("far", 500, 500, 5, 5, 1)])
    folder = root / "stage_2_train_images"
    (folder / "gone.dcm").unlink()
    raw_dicom(folder / "stranger.dcm", xray(1))
    (folder / "a-negative.dcm").write_bytes(b"x" * 200)
    assert run("rsna", root, out) == 0
    assert rejected(out) == [
        ("both", "its rows have Target 0 and 1"),
        ("boxless", "Target is 1 without a box"),
        ("gone", "no DICOM"),
        ("stage_2_train_images/a-negative.dcm", "no DICOM file"),
        ("stage_2_train_images/far.dcm", "no box left: box 500 500 5 5 is empty or outside 100 x 80"),
    ]
    info = info_of(out)
    assert info["images"] == 1 and info["rejected"] == 5
    assert any(note.startswith("3 DICOM file(s) without a row") for note in info["notes"])
    assert "Left out" in capsys.readouterr().out
    assert run("rsna", root, tmp_path / "strict", "--strict") == 1
    assert not (tmp_path / "strict").exists()


def test_detailed_classes_are_counted_by_patient(tmp_path, out):
    root = write_rsna(tmp_path / "in", ROWS)
    rows = [("b-two", "Lung Opacity"), ("b-two", "Lung Opacity"), ("a-negative", "Normal")]
    write_csv(root / "stage_2_detailed_class_info.csv", ("patientId", "class"), rows)
    assert run("rsna", root, out) == 0
    assert info_of(out)["detailed_classes"] == {"Lung Opacity": 1, "Normal": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "is empty"),
        (lambda text: text.replace("width", "widht", 1), "no column 'width' (is it 'widht'?)"),
        (lambda text: text.replace(",1\n", ",7\n", 1), "line 2: Target is 7"),
        (lambda text: text.replace("30.0", "wide", 1), "can't be read as csv"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, out, change, said, capsys):
    root = write_rsna(tmp_path / "in", ROWS)
    table = root / "stage_2_train_labels.csv"
    table.write_text(change(table.read_text()))
    assert run("rsna", root, out) == 2
    message = capsys.readouterr().err
    assert said in message and "stage_2_train_labels.csv" in message


def test_wrong_folders(tmp_path, out, capsys):
    root = write_rsna(tmp_path / "in", ROWS)
    assert run("rsna", root / "stage_2_train_images", out) == 2
    assert "no stage_2_train_images in it" in capsys.readouterr().err
    for path in (root / "stage_2_train_images").iterdir():
        path.unlink()
    assert run("rsna", root, out) == 2
    assert "no image of" in capsys.readouterr().err and not out.exists()
