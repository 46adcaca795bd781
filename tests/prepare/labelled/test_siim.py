"""SIIM-ACR: spellings in the table, masks of several rows, and invalid run-length encodings."""

import numpy as np
import pytest
from PIL import Image

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.radiology.rle import encode_rle
from prior_fast.radiology.xray import to_square
from tests.prepare.labelled.trees import info_of, raw_dicom, rejected, run, write_siim, xray


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def block(rows: slice, columns: slice, shape=(64, 64)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize("header", [("ImageId", " EncodedPixels"), ("ImageId", "EncodedPixels")])
@pytest.mark.parametrize("table", ["train-rle.csv", "stage_2_train.csv"])
@pytest.mark.parametrize("negative", ["-1", " -1"])
def test_spellings_of_the_table(tmp_path, out, header, table, negative):
    mask = block(slice(16, 48), slice(8, 24))
    rows = [("1.2.840.7", f" {encode_rle(mask)}"), ("1.2.840.5", negative)]
    assert run("siim", write_siim(tmp_path / "in", rows, table=table, header=header), out) == 0
    dataset = LabelledDataset.open(out, verify="full")
    assert dataset.image_ids == ["1.2.840.5", "1.2.840.7"] and dataset.classes == ("Pneumothorax",)
    assert dataset.labels[:, 0].tolist() == [0, 1] and dataset.has_masks and not dataset.has_boxes
    assert not dataset.mask(0).any()
    assert np.array_equal(dataset.mask(1), block(slice(56, 168), slice(28, 84), (224, 224)))
    assert np.array_equal(dataset.images[1], to_square(Image.fromarray(xray(0, 64, 64))))


def test_ten_rows_are_one_mask_in_the_images_own_size(tmp_path, out):
    shape = (112, 56)
    parts = [block(slice(11 * n, 11 * n + 6), slice(2 * n, 2 * n + 6), shape) for n in range(10)]
    rows = [("1.1", encode_rle(part)) for part in parts]
    assert run("siim", write_siim(tmp_path / "in", rows, shape), out) == 0
    dataset = LabelledDataset.open(out)
    assert len(dataset) == 1
    union = np.logical_or.reduce(parts)
    assert np.array_equal(dataset.mask(0), np.kron(union, np.ones((2, 4), bool)))


def test_encodings_that_cannot_be_are_rejected(tmp_path, out, capsys):
    good = encode_rle(block(slice(10, 30), slice(10, 30)))
    rows = [
        ("1.1", good),
        ("1.2", "4000 97"),
        ("1.3", "10 20 30"),
        ("1.4", "10 x"),
        ("1.5", ""),
        ("1.6", "100 0"),
        ("1.7", good),
        ("1.7", "4000 97"),
    ]
    root = write_siim(tmp_path / "in", rows)
    assert run("siim", root, out) == 0
    assert LabelledDataset.open(out).image_ids == ["1.1"]
    reasons = {file.rsplit("/", 1)[-1]: reason for file, reason in rejected(out)}
    assert reasons == {
        "1.2.dcm": "the RLE runs to pixel 4097 of an image of 64 x 64 = 4096",
        "1.3.dcm": "the RLE has 3 numbers, not pairs",
        "1.4.dcm": "the RLE has 'x' where a number belongs",
        "1.5.dcm": "the RLE has 0 numbers, not pairs",
        "1.6.dcm": "the RLE sets no pixel",
        "1.7.dcm": "the RLE runs to pixel 4097 of an image of 64 x 64 = 4096",
    }
    capsys.readouterr()
    assert run("siim", root, tmp_path / "strict", "--strict") == 1
    assert "runs to pixel 4097" in capsys.readouterr().err


def test_a_mask_too_small_for_224_is_not_lost(tmp_path, out):
    mask = block(slice(500, 501), slice(700, 701), (1024, 1024))
    assert run("siim", write_siim(tmp_path / "in", [("1.1", encode_rle(mask))], (1024, 1024)), out) == 0
    dataset = LabelledDataset.open(out)
    assert np.argwhere(dataset.mask(0)).tolist() == [[109, 153]]
    assert any("kept the pixels with the greatest share: 1 image" in note for note in info_of(out)["notes"])


def test_files_without_rows_and_rows_without_files(tmp_path, out):
    root = write_siim(tmp_path / "in", [("1.1", "-1"), ("1.2", "-1")])
    next(root.rglob("1.2.dcm")).unlink()
    raw_dicom(root / "dicom-images-train" / "a" / "b" / "9.9.dcm", xray(1))
    raw_dicom(root / "dicom-images-train" / "z" / "b" / "1.1.dcm", xray(1))
    assert run("siim", root, out) == 0
    assert rejected(out) == [("1.2", "no DICOM")]
    notes = info_of(out)["notes"]
    assert "1 DICOM file(s) without a row in the table were not read" in notes
    assert any(note.startswith("1 DICOM file(s) have the name of another one") for note in notes)


def test_stage_2_looks_into_the_folder_of_the_test_too(tmp_path, out):
    root = write_siim(tmp_path / "in", [("1.1", "-1"), ("1.2", "-1")], table="stage_2_train.csv")
    moved = root / "dicom-images-test" / "a" / "b" / "1.2.dcm"
    moved.parent.mkdir(parents=True)
    next(root.rglob("1.2.dcm")).rename(moved)
    assert run("siim", root, out) == 0
    assert len(LabelledDataset.open(out)) == 2


def test_tables_and_folders_that_cannot_be_used(tmp_path, out, capsys):
    root = write_siim(tmp_path / "in", [("1.1", "-1")])
    table = root / "train-rle.csv"
    text = table.read_text()
    for wrong, said in (("", "is empty"), (text.replace("Encoded", "Endoced"), "(is it 'EndocedPixels'?)")):
        table.write_text(wrong)
        assert run("siim", root, out) == 2
        message = capsys.readouterr().err
        assert said in message and "train-rle.csv" in message
    table.unlink()
    assert run("siim", root, out) == 2
    assert "no train-rle.csv or stage_2_train.csv in it" in capsys.readouterr().err
