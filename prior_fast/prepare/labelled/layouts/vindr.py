"""VinDr-CXR: labels and boxes by several radiologists, as on PhysioNet or on Kaggle."""

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from prior_fast.prepare.any_table import Table, read_table
from prior_fast.prepare.label_words import label_value
from prior_fast.prepare.labelled.boxes import MarkedBox, averaged, box_numbers, corners
from prior_fast.prepare.labelled.builder import LabelledBuilder
from prior_fast.prepare.labelled.files import need
from prior_fast.prepare.labelled.labelled_source import LabelledSource

HELP = "VinDr-CXR: labels and boxes of several readers (PhysioNet, or Kaggle's train.csv)"
EXAMPLE = "--images vindr-cxr/1.0.0"
IMAGES = "folder with train/, test/ and annotations/ (PhysioNet), or with train/ and train.csv (Kaggle)"

NORMAL = "No finding"
_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_IDS = ("image_id", "rad_id")
# The test table has a class in the singular.
_SPELLINGS = {"Other disease": "Other diseases"}
_ENOUGH: dict[str, Callable[[int, int], bool]] = {
    "majority": lambda yes, readers: 2 * yes > readers,
    "any": lambda yes, readers: yes > 0,
    "all": lambda yes, readers: yes == readers,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the option of this dataset alone."""
    parser.add_argument(
        "--readers",
        choices=tuple(_ENOUGH),
        default="majority",
        help="a finding is present if this many of the image's readers marked it (default: majority, two of three)",
    )


def read(args: argparse.Namespace) -> LabelledSource:
    """Read the tables. Boxes of a class that is present are kept; those that readers share are averaged.

    Raises:
        UsageError: a table or a column is missing.
    """
    root: Path = args.images
    kaggle = (root / "train.csv").is_file()
    parts = {"train": need(root, "train.csv")} if kaggle else {p: _annotations(root, p) for p in ("train", "test")}
    marks = {part: read_table(path, "--images") for part, path in parts.items()}
    votes = {
        part: _votes_of_boxes(table) if kaggle else _votes(read_table(_labels(root, part), "--images"))
        for part, table in marks.items()
    }
    classes = sorted({name for of in votes.values() for counts, _ in of.values() for name in counts} - {NORMAL})
    builder = LabelledBuilder("vindr", root, classes)
    for part, of_images in votes.items():
        boxes = _boxes(marks[part], classes)
        for image, (counts, readers) in of_images.items():
            labels = {name: float(_ENOUGH[args.readers](counts[name], readers)) for name in classes}
            kept = [box for box in boxes.get(image, []) if labels[classes[box.number]] == 1]
            builder.add(f"{part}/{image}", labels, part=None if kaggle else part, boxes=averaged(kept))
    builder.notes.append(f"a finding is present if it was marked by: {args.readers} of the image's readers")
    return builder.source("official")


def _annotations(root: Path, part: str) -> Path:
    return need(root, f"annotations/annotations_{part}.csv", f"annotations_{part}.csv")


def _labels(root: Path, part: str) -> Path:
    return need(root, f"annotations/image_labels_{part}.csv", f"image_labels_{part}.csv")


def _votes(table: Table) -> dict[str, tuple[Counter[str], int]]:
    """For each image how many readers marked each class, and how many there are; a row is a reader's."""
    columns = [name for name in table.columns if name.lower() not in _IDS and not name.startswith("Unnamed:")]
    cells = {_SPELLINGS.get(name, name): table.columns[name] for name in columns}
    votes: dict[str, tuple[Counter[str], int]] = {}
    (images,) = table.needed("image_id")
    for place, (line, image) in enumerate(zip(table.lines, images)):
        counts, readers = votes.get(str(image), (Counter(dict.fromkeys(cells, 0)), 0))
        where = f"{table.path}, line {line}"
        counts.update(name for name, column in cells.items() if label_value(column[place], where, name) == 1)
        votes[str(image)] = counts, readers + 1
    return votes


def _votes_of_boxes(table: Table) -> dict[str, tuple[Counter[str], int]]:
    """The same from Kaggle's table, whose rows are boxes, or "No finding" of a reader."""
    # Not sets: their order differs from run to run.
    rows = dict.fromkeys(zip(*table.needed("image_id", "class_name", "rad_id")))
    readers = Counter(image for image, _ in dict.fromkeys((image, reader) for image, _, reader in rows))
    votes: dict[str, tuple[Counter[str], int]] = {str(image): (Counter(), count) for image, count in readers.items()}
    for image, label, _ in rows:
        votes[str(image)][0][str(label)] += 1
    return votes


def _boxes(table: Table, classes: list[str]) -> dict[str, list[MarkedBox]]:
    """The boxes of each image, of all readers, in the order of the table."""
    boxes: dict[str, list[MarkedBox]] = {}
    for line, image, label, *sides in zip(table.lines, *table.needed("image_id", "class_name", *_CORNERS)):
        if label in classes and all(sides):
            box = corners(*box_numbers(sides, f"{table.path}, line {line}"))
            boxes.setdefault(str(image), []).append(MarkedBox(classes.index(label), box))
    return boxes
