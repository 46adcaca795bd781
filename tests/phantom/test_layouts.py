"""The phantom in each layout, through the whole of `prepare`."""

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from prior_fast.cli.main import main
from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.phantom.generate import contents_of
from prior_fast.phantom.layouts import siim
from prior_fast.phantom.layouts.square import draw_square
from prior_fast.phantom.mimic import place_studies
from prior_fast.radiology.labels import FIVE_CLASSES
from prior_fast.radiology.masks import shrink_mask
from tests.prepare.labelled.trees import CHEXPERT_HEADER, info_of, run

STUDIES, SIZE = 14, 160


def make(layout: str, out: Path, studies: int = STUDIES, seed: int = 3, workers: int = 1) -> Path:
    words = ["--layout", layout, "--studies", studies, "--seed", seed, "--size", SIZE, "--workers", workers]
    assert main(["phantom", "--out", str(out), *map(str, words)]) == 0
    return out


@pytest.fixture(scope="module", params=["chexpert", "rsna", "siim"])
def made(request, tmp_path_factory) -> tuple[str, Path]:
    return request.param, make(request.param, tmp_path_factory.mktemp(request.param) / "phantom")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digests(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file() and path.name != "report.json"]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_each_layout_is_prepared_with_nothing_left_out(made, tmp_path):
    layout, root = made
    assert run(layout, root, tmp_path / "out", "--strict") == 0
    dataset = LabelledDataset.open(tmp_path / "out", verify="full")
    report = json.loads((root / "report.json").read_text())
    info = info_of(tmp_path / "out")
    assert info["rejected"] == 0 and report["studies"] == STUDIES
    assert dataset.images.std() > 20
    if layout == "chexpert":
        assert len(dataset) == report["frontal"] and report["labels"]["Edema"]["positive"] > 0
        return
    assert len(dataset) == report["images"] == STUDIES
    assert int(dataset.labels.sum()) == report["positive"] > 0
    assert all(dataset.mask(row).any() == (dataset.labels[row, 0] == 1) for row in range(STUDIES))


def test_fewer_studies_are_the_first_of_more(made, tmp_path):
    layout, root = made
    short, whole = digests(make(layout, tmp_path / "short", studies=4)), digests(root)
    tables = {name for name in short if name.endswith(".csv")}
    assert tables and {name: short[name] for name in short.keys() - tables}.items() <= whole.items()
    for name in tables:
        rows = (tmp_path / "short" / name).read_text().splitlines()
        assert (root / name).read_text().splitlines()[: len(rows)] == rows


def test_bytes_do_not_depend_on_workers(tmp_path):
    one, two = (digests(make("siim", tmp_path / str(n), studies=12, workers=n)) for n in (1, 2))
    assert one == two


def test_chexperts_tables(tmp_path):
    root = make("chexpert", tmp_path / "a", studies=40, seed=1)
    train, valid = table(root / "train.csv"), table(root / "valid.csv")
    assert tuple(train[0]) == CHEXPERT_HEADER
    values = {row[name] for row in train for name in FIVE_CLASSES}
    assert values == {"1.0", "0.0", "-1.0", ""} and {row[name] for row in valid for name in FIVE_CLASSES} == {
        "1.0",
        "0.0",
    }
    assert {row["Frontal/Lateral"] for row in train} == {"Frontal", "Lateral"}
    assert {row["AP/PA"] for row in train if row["Frontal/Lateral"] == "Lateral"} == {""}
    patients = [{row["Path"].split("/")[2] for row in rows} for rows in (train, valid)]
    assert not patients[0] & patients[1]
    assert run("chexpert5x200", root, tmp_path / "five", "--per-class", 2) == 0
    assert (LabelledDataset.open(tmp_path / "five").labels.sum(axis=0) == 2).all()


def test_dicoms_are_like_the_originals(tmp_path):
    rsna, acr = make("rsna", tmp_path / "rsna", studies=2), make("siim", tmp_path / "siim", studies=2)
    for root, pattern in ((rsna, "stage_2_train_images/*.dcm"), (acr, "dicom-images-train/*/*/*.dcm")):
        paths = sorted(root.glob(pattern))
        assert len(paths) == 2
        for path in paths:
            dataset = dcmread(path)
            assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
            assert dataset.PhotometricInterpretation == "MONOCHROME2" and dataset.BitsStored == 8
            assert dataset.pixel_array.shape == (SIZE, SIZE)
            if root == acr:
                parts = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
                assert path.relative_to(root / "dicom-images-train").with_suffix("").parts[:2] == parts[:2]
                assert path.name == f"{parts[2]}.dcm"
    assert (acr / "train-rle.csv").read_text().startswith("ImageId, EncodedPixels\n")


def test_a_prepared_mask_is_the_drawn_one(tmp_path):
    root = make("siim", tmp_path / "in")
    assert run("siim", root, tmp_path / "out") == 0
    dataset = LabelledDataset.open(tmp_path / "out")
    ids = list(dict.fromkeys(row["ImageId"] for row in table(root / "train-rle.csv")))
    places = siim.choose_studies(3, STUDIES)
    compared = 0
    for name, place in zip(ids, places, strict=True):
        row = dataset.image_ids.index(name)
        assert (dataset.labels[row, 0] == 1) == (contents_of(3, place).finding("Pneumothorax") is not None)
        if dataset.labels[row, 0] == 1:
            drawn = draw_square(place, 3, SIZE)[1].masks["Pneumothorax"]
            assert np.array_equal(dataset.mask(row), shrink_mask(drawn)[0])
            compared += 1
    assert compared >= 2


def test_a_prepared_box_frames_a_drawn_consolidation(tmp_path):
    root = make("rsna", tmp_path / "in")
    assert run("rsna", root, tmp_path / "out") == 0
    dataset = LabelledDataset.open(tmp_path / "out")
    details = {row["patientId"]: row["class"] for row in table(root / "stage_2_detailed_class_info.csv")}
    for row in table(root / "stage_2_train_labels.csv"):
        assert (details[row["patientId"]] == "Lung Opacity") == (row["Target"] == "1")
        if row["Target"] == "1":
            boxes = dataset.boxes(dataset.image_ids.index(row["patientId"]))
            full = np.array([float(row[side]) for side in ("x", "y", "width", "height")])
            assert np.isclose(boxes, full * 224 / SIZE, atol=1e-4).all(axis=1).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_shares_of_positives_are_those_of_the_originals(seed):
    places = siim.choose_studies(seed, 600)
    share = np.mean([contents_of(seed, place).finding("Pneumothorax") is not None for place in places])
    assert 0.18 < share < 0.26
    places = place_studies(seed, 600)
    share = np.mean([contents_of(seed, place).finding("Consolidation") is not None for place in places])
    assert 0.18 < share < 0.27


def test_who_needs_no_dicom_does_without_pydicom():
    code = (
        "import sys, prior_fast; from prior_fast.cli.main import make_parser; make_parser()\n"
        "import prior_fast.data.labelled_dataset, prior_fast.phantom.generate\n"
        "import prior_fast.prepare.labelled.layouts.chexpert5x200, prior_fast.phantom.layouts.chexpert\n"
        "print([name for name in ('pydicom', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_layout_is_refused(tmp_path, capsys):
    assert main(["phantom", "--layout", "nih", "--out", str(tmp_path / "x")]) == 2
    assert "nih" in capsys.readouterr().err
