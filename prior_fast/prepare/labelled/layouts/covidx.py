"""COVIDx: chest X-rays with or without COVID-19, gathered from several sources."""

import argparse

from prior_fast.errors import UsageError
from prior_fast.prepare.labelled.builder import LabelledBuilder
from prior_fast.prepare.labelled.files import need, read_text
from prior_fast.prepare.labelled.labelled_source import LabelledSource

HELP = "COVIDx CXR: COVID-19 or not (CXR-3 and later), or normal, pneumonia and COVID-19"
EXAMPLE = "--images covidx-cxr"
IMAGES = "folder with train.txt, test.txt (val.txt) and the images in train/, test/ (val/)"

LISTS = {"train": ("train.txt", "train_split.txt"), "validate": ("val.txt",), "test": ("test.txt", "test_split.txt")}
_FOLDERS = {"train": "train", "validate": "val", "test": "test"}
_TWO = {"positive": {"COVID-19": 1.0}, "negative": {"COVID-19": 0.0}}
_THREE = ("normal", "pneumonia", "COVID-19")


def read(args: argparse.Namespace) -> LabelledSource:
    """Read the lists, whose lines are: patient, file, class, source. Negatives have no class of their own.

    Raises:
        UsageError: a list is missing, or a line has another form.
    """
    rows = [(part, *row) for part, names in LISTS.items() for row in _rows(args, part, names)]
    two = all(label in _TWO for *_, label in rows)
    builder = LabelledBuilder("covidx", args.images, ("COVID-19",) if two else _THREE)
    for part, where, patient, name, label in rows:
        if not two and label not in _THREE:
            raise UsageError(f"{where}: {label!r} is none of positive, negative; nor of {', '.join(_THREE)}")
        labels = _TWO[label] if two else {other: float(other == label) for other in _THREE}
        builder.add(f"{_FOLDERS[part]}/{name}", labels, patient, part)
    return builder.source("official")


def _rows(args: argparse.Namespace, part: str, names: tuple[str, ...]) -> list[tuple[str, str, str, str]]:
    """Where, patient, file and class of each line. A patient may have blanks in its name."""
    if part == "validate" and not (args.images / names[0]).is_file():
        return []
    path = need(args.images, *names)
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 4:
            raise UsageError(f"{path}, line {number}: {line!r} is not: patient, file, class, source")
        *patient, name, label, _source = words
        rows.append((f"{path}, line {number}", " ".join(patient), name, label))
    return rows
