"""CheXpert's tables: train.csv and valid.csv of CheXpert-v1.0 and CheXpert-v1.0-small."""

import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from prior_fast.errors import UsageError
from prior_fast.prepare.csv_tables import read_rows
from prior_fast.prepare.labelled.files import need
from prior_fast.radiology.labels import CHEXPERT_TABLE_LABELS

FOLDERS = ("CheXpert-v1.0-small", "CheXpert-v1.0")
_PATH = re.compile(r"(?:.*/)?((?:train|valid)/(patient[^/]+)/.+)")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of train.csv or valid.csv.

    Attributes:
        number: the row's number in its table, from 0.
        path: the path without the source's folder: train/patient00001/study1/view1_frontal.jpg.
        labels: in the order of `CHEXPERT_TABLE_LABELS`, 1, 0, -1, or None where blank.
    """

    number: int
    path: str
    patient: str
    frontal: bool
    labels: tuple[float | None, ...]


def find_root(images: Path) -> Path:
    """The folder that holds train.csv: `images`, or CheXpert-v1.0-small or CheXpert-v1.0 in it.

    Raises:
        UsageError: none of these folders holds train.csv.
    """
    for folder in (images, *(images / name for name in FOLDERS)):
        if (folder / "train.csv").is_file():
            return folder
    return need(images, "train.csv").parent


def strip_prefix(path: str) -> tuple[str, str] | None:
    """A path of the tables without the part before train/ or valid/, and its patient; None for other paths."""
    found = _PATH.fullmatch(path.strip())
    return (found[1], found[2]) if found else None


def read_table(path: Path) -> list[Row]:
    """The rows of train.csv or valid.csv.

    Raises:
        UsageError: a column is missing or a value is invalid.
    """
    types = {"Path": pa.string(), "Frontal/Lateral": pa.string(), **dict.fromkeys(CHEXPERT_TABLE_LABELS, pa.float64())}
    columns = read_rows(path, types, nullable=CHEXPERT_TABLE_LABELS, labels=CHEXPERT_TABLE_LABELS)
    rows, seen = [], set()
    for number, (name, view, *labels) in enumerate(zip(*columns.values())):
        stripped = strip_prefix(name)
        if stripped is None:
            raise UsageError(f"{path}, line {number + 2}: Path {name!r} has no train/patient.../ or valid/patient.../")
        if stripped[0] in seen:
            raise UsageError(f"{path}, line {number + 2}: {stripped[0]} is there twice")
        seen.add(stripped[0])
        if view.capitalize() not in ("Frontal", "Lateral"):
            raise UsageError(f"{path}, line {number + 2}: 'Frontal/Lateral' is {view!r}")
        for label, value in zip(CHEXPERT_TABLE_LABELS, labels):
            if value not in (1.0, 0.0, -1.0, None):
                raise UsageError(f"{path}, line {number + 2}: {label!r} is {value}, not 1, 0, -1 or empty")
        rows.append(Row(number, *stripped, view.capitalize() == "Frontal", tuple(labels)))
    return rows
