"""Small trees in the layouts of the labelled datasets, and DICOM files of any kind, for tests of preparing."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from prior_fast.cli.main import main
from prior_fast.radiology.labels import CHEXPERT_TABLE_LABELS

CHEXPERT_HEADER = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_TABLE_LABELS)
RSNA_HEADER = ("patientId", "x", "y", "width", "height", "Target")


def run(name: str, images: Path, out: Path, *words: object) -> int:
    """`prior-fast prepare NAME` in this process."""
    return main(["prepare", name, "--images", str(images), "--out", str(out), "--workers", "1", *map(str, words)])


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([list(header), *rows])


def rejected(out: Path) -> list[tuple[str, str]]:
    """The lines of rejected.csv."""
    with (out / "rejected.csv").open(encoding="utf-8", newline="") as file:
        return [(row["file"], row["reason"]) for row in csv.DictReader(file)]


def info_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "dataset.json").read_text(encoding="utf-8"))


def xray(number: int, rows: int = 40, columns: int = 48) -> np.ndarray:
    """Smooth made-up pixels: uint8 [rows, columns]."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8))
    return np.asarray(coarse.resize((columns, rows), Image.Resampling.BICUBIC))


def raw_dicom(
    path: Path, pixels: np.ndarray, bits: int = 8, syntax: str = ExplicitVRLittleEndian, **facts: Any
) -> None:
    """An uncompressed DICOM file of stored values [H, W], with elements changed by keyword."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = pixels.dtype.itemsize * 8, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for name, value in facts.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def chexpert_row(path: str, view: str = "Frontal", **labels: float) -> list[Any]:
    """A row of train.csv; labels by name, blank where not given."""
    by_name = {name.replace("_", " "): value for name, value in labels.items()}
    side = "AP" if view == "Frontal" else ""
    return [path, "Female", 50, view, side, *(by_name.get(name, "") for name in CHEXPERT_TABLE_LABELS)]


def write_chexpert(root: Path, train: Sequence[Sequence[Any]], valid: Sequence[Sequence[Any]] = ()) -> Path:
    """A CheXpert tree with a JPEG for each row; a row of valid.csv is added where none is given."""
    root.mkdir(parents=True, exist_ok=True)
    valid = valid or [chexpert_row("CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg")]
    for name, rows in (("train", train), ("valid", valid)):
        write_csv(root / f"{name}.csv", CHEXPERT_HEADER, rows)
        for number, row in enumerate(rows):
            path = root / row[0].split("CheXpert-v1.0-small/")[-1].split("CheXpert-v1.0/")[-1]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(xray(number)).save(path)
    return root


def write_rsna(root: Path, rows: Sequence[Sequence[Any]], size: tuple[int, int] = (80, 100)) -> Path:
    """An RSNA tree with a DICOM file of `size` (rows, columns) for each patientId of the rows."""
    (root / "stage_2_train_images").mkdir(parents=True)
    write_csv(root / "stage_2_train_labels.csv", RSNA_HEADER, rows)
    for number, name in enumerate(dict.fromkeys(row[0] for row in rows)):
        raw_dicom(root / "stage_2_train_images" / f"{name}.dcm", xray(number, *size))
    return root


def write_siim(
    root: Path,
    rows: Sequence[tuple[str, str]],
    size: tuple[int, int] = (64, 64),
    table: str = "train-rle.csv",
    header: tuple[str, str] = ("ImageId", " EncodedPixels"),
) -> Path:
    """A SIIM-ACR tree with a DICOM file of `size` (rows, columns) for each ImageId of the rows."""
    root.mkdir(parents=True)
    write_csv(root / table, header, rows)
    for number, name in enumerate(dict.fromkeys(row[0] for row in rows)):
        folder = root / "dicom-images-train" / f"1.2.{number}" / f"1.3.{number}"
        raw_dicom(folder / f"{name}.dcm", xray(number, *size))
    return root
