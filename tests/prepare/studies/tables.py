"""Folders of X-rays with a table of reports, as users have them, for tests of preparing."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prior_fast.cli.main import main
from tests.prepare.labelled.trees import xray

SENTENCES = (
    "The heart is normal in size.",
    "There is a small left pleural effusion.",
    "The lungs are clear.",
    "No pneumothorax is seen.",
    "Mild cardiomegaly.",
)


def text(number: int, count: int = 3) -> str:
    """A report of some sentences, without headers."""
    return " ".join(SENTENCES[(number + place) % len(SENTENCES)] for place in range(count))


def save_xray(path: Path, number: int, size: tuple[int, int] = (48, 40)) -> np.ndarray:
    """Save a made-up X-ray in the format of the path's ending; returns its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = xray(number, size[1], size[0])
    Image.fromarray(pixels).save(path)
    return pixels


def write_table(path: Path, header: Iterable[str], rows: Iterable[Sequence[Any]], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    delimiter = "\t" if path.suffix == ".tsv" else ","
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([list(header), *rows])
    return path


def prepare(layout: str, out: Path, *words: object) -> int:
    """`prior-fast prepare LAYOUT` in this process."""
    return main(["prepare", layout, "--out", str(out), "--workers", "1", *map(str, words)])


def rejected(path: Path) -> list[tuple[str, str, str]]:
    """The lines of a rejected.csv: study, file, reason."""
    with path.open(encoding="utf-8", newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]
