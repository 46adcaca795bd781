"""MIMIC-CXR-JPG 2.0.0's layout: ids, paths, tables, and how each file is written.

https://physionet.org/content/mimic-cxr-jpg/2.0.0/
"""

import csv
import gzip
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prior_fast.phantom.contents import stream
from prior_fast.radiology.labels import CHEXPERT_LABELS

METADATA_COLUMNS = (
    "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns",
    "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip
SPLIT_COLUMNS = ("dicom_id", "study_id", "subject_id", "split")
CHEXPERT_COLUMNS = ("subject_id", "study_id", *CHEXPERT_LABELS)
ANNOTATION_COLUMNS = ("dicom_id", "finding", "side", "severity", "x", "y", "width", "height", "mask")

_JPEG_QUALITY = 92
_IDS = 10_000_000
_GOLDEN_RATIO = 0.6180339887498949
SPLITS = ("train", "validate", "test")
_TRAIN_SHARE, _VALIDATE_SHARE = 0.73, 0.10

Row = dict[str, Any]


@dataclass
class StudyRows:
    """The rows that one study adds to each table."""

    metadata: list[Row] = field(default_factory=list)
    split: list[Row] = field(default_factory=list)
    chexpert: list[Row] = field(default_factory=list)
    annotations: list[Row] = field(default_factory=list)
    sentences: int = 0


@dataclass(frozen=True)
class Place:
    """A study's number, its number within its split, its subject's number, the ids of both, and the split."""

    study: int
    study_of_split: int
    subject: int
    study_id: int
    subject_id: int
    split: str

    @property
    def folder(self) -> Path:
        """The folder of the study's images in the tree. The report is beside it, with `.txt` added to its name."""
        subject = f"p{self.subject_id}"
        return Path("files") / subject[:3] / subject / f"s{self.study_id}"


def place_studies(seed: int, studies: int) -> list[Place]:
    """Subjects of 1 to 3 studies, split by subject. A shorter dataset is the beginning of a longer one."""
    rng = stream(seed, 0)
    # Multiplying by a number coprime to 10^7 permutes the ids, so that no two are equal without a list of used ids.
    multipliers = [int(rng.integers(1, _IDS // 20)) * 20 + 3 for _ in range(2)]
    offsets = [int(rng.integers(_IDS)) for _ in range(2)]
    start = float(rng.random())
    places: list[Place] = []
    sizes = dict.fromkeys(SPLITS, 0)
    subject = 0
    while len(places) < studies:
        # Steps of the golden ratio spread the subjects over the splits evenly in datasets of any length.
        position = (start + subject * _GOLDEN_RATIO) % 1.0
        split = "train" if position < _TRAIN_SHARE else "test"
        if _TRAIN_SHARE <= position < _TRAIN_SHARE + _VALIDATE_SHARE:
            split = "validate"
        subject_id = _IDS + (multipliers[0] * subject + offsets[0]) % _IDS
        for _ in range(int(stream(seed, 1, subject).choice([1, 2, 3], p=[0.6, 0.28, 0.12]))):
            study_id = 5 * _IDS + (multipliers[1] * len(places) + offsets[1]) % _IDS
            places.append(Place(len(places), sizes[split], subject, study_id, subject_id, split))
            sizes[split] += 1
        subject += 1
    return places[:studies]


def dicom_id(rng: np.random.Generator) -> str:
    """Five groups of eight hexadecimal digits."""
    return "-".join(f"{int(group):08x}" for group in rng.integers(0, 2**32, 5, dtype=np.uint64))


def box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x, y, width and height in pixels of the smallest box around a mask [H, W] that is not empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y


def write_jpeg(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write pixels [H, W] uint8 as a gray 8-bit JPEG."""
    _save(path, Image.fromarray(pixels), format="JPEG", quality=_JPEG_QUALITY)


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write mask [H, W] as an 8-bit PNG of 0 and 255."""
    # Masks have few edges: a higher level takes longer and saves a few hundred bytes.
    _save(path, Image.fromarray(mask.astype(np.uint8) * 255), format="PNG", compress_level=1)


def _save(path: Path, image: Image.Image, **settings: Any) -> None:
    # Pillow reports a full disk without the system's error number.
    data = io.BytesIO()
    image.save(data, **settings)
    path.write_bytes(data.getvalue())


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV, gzipped if the name ends in .gz. The same rows give the same bytes; absent values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    data = text.getvalue().encode()
    # Without mtime=0 gzip would write the current time into its header.
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write_tables(root: Path, studies: Iterable[StudyRows]) -> None:
    """Write the three tables of MIMIC-CXR-JPG, and annotations.csv."""
    studies = list(studies)
    tables = (
        ("mimic-cxr-2.0.0-metadata.csv.gz", METADATA_COLUMNS, "metadata"),
        ("mimic-cxr-2.0.0-split.csv.gz", SPLIT_COLUMNS, "split"),
        ("mimic-cxr-2.0.0-chexpert.csv.gz", CHEXPERT_COLUMNS, "chexpert"),
        ("annotations.csv", ANNOTATION_COLUMNS, "annotations"),
    )
    for name, columns, attribute in tables:
        write_table(root / name, columns, (row for study in studies for row in getattr(study, attribute)))
