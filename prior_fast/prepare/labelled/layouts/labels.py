"""Any labelled X-rays: a table that names the images and has labels, and boxes if there are any."""

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prior_fast.errors import UsageError
from prior_fast.prepare.any_table import Table, cell_text, read_table
from prior_fast.prepare.label_words import is_label, label_value, split_names
from prior_fast.prepare.labelled.boxes import MarkedBox, corners
from prior_fast.prepare.labelled.builder import LabelledBuilder
from prior_fast.prepare.labelled.files import need
from prior_fast.prepare.labelled.labelled_source import LabelledSource
from prior_fast.prepare.split_words import is_split

HELP = "your own table of images and labels, with or without boxes: csv, tsv, JSON lines or Parquet"
EXAMPLE = "--table labels.csv --images xrays"
IMAGES = "folder of the images"

IMAGE = (
    *("image_path", "image", "path", "file", "filename", "file_name", "filepath", "file_path", "img", "image_index"),
    *("image_id", "imageid", "dicom_id", "patientid", "name", "id"),
)
NAMES = (
    "finding_labels",
    "labels",
    "label",
    "findings",
    "finding",
    "class_name",
    "class",
    "diagnosis",
    "diagnoses",
    "syms",
)
PATIENT = ("patient_id", "patient", "patientid", "subject_id", "subject", "person_id")
SPLIT = ("split", "fold", "subset", "partition", "set")
# The usual names of the columns of a box, and whether they are its corners.
BOXES = (
    (("x", "y", "width", "height"), False),
    (("x", "y", "w", "h"), False),
    (("x_min", "y_min", "x_max", "y_max"), True),
    (("x1", "y1", "x2", "y2"), True),
)
# Columns that are never labels, even if their cells could be. Case, blanks, "_" and "-" do not matter.
_FACTS = frozenset(
    (
        *("age", "patientage", "agegroup", "sex", "gender", "patientgender", "patientsex", "view", "viewposition"),
        *("projection", "rows", "columns", "width", "height", "x", "y", "w", "h", "xmin", "ymin", "xmax", "ymax"),
        *("id", "imageid", "patientid", "studyid", "seriesid", "classid", "labelid", "radid", "readerid", "dicomid"),
        *("followup", "followup#", "year", "index", "unnamed:0", *SPLIT),
    )
)
_NO_FINDING = frozenset(("no finding", "no findings", "normal", "none", "negative", "nothing", "healthy"))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what the columns mean."""
    parser.add_argument("--table", type=Path, required=True, metavar="FILE", help="the table")
    parser.add_argument("--image", metavar="COLUMN", help="paths of the images (default: found by usual names)")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--classes", metavar="A,B", help="columns with 1, 0, -1, yes, no, ..., each a class")
    given.add_argument("--labels", metavar="COLUMN", help="a column with the names of the classes: A|B")
    parser.add_argument("--patient", metavar="COLUMN", help="name of the patient (default: found by usual names)")
    parser.add_argument("--split", metavar="COLUMN", help="train, validate or test (default: found by usual names)")
    boxes = parser.add_mutually_exclusive_group()
    boxes.add_argument("--box", metavar="X,Y,W,H", help="columns of a box; several rows of an image are its boxes")
    boxes.add_argument("--corners", metavar="X1,Y1,X2,Y2", help="columns of the corners of a box")


def read(args: argparse.Namespace) -> LabelledSource:
    """Read the table.

    Raises:
        UsageError: a file or a column is missing, or a cell can't be used.
    """
    table, root = read_table(args.table), need(args.images, ".")
    image = str(table.find("--image", args.image, IMAGE))
    patient = table.find("--patient", args.patient, [name for name in PATIENT if name != image.lower()], required=False)
    patient = None if patient == image else patient
    split = table.find("--split", args.split, SPLIT, required=False)
    if args.split is None and split and not any(is_split(cell) for cell in table.texts(split)):
        ignored, split = f"column {split} names no part (train, validate, test) and was not used", None
    else:
        ignored = ""
    sides, is_corners = _box_columns(table, args.box, args.corners)
    taken = {image, patient, split, *sides}
    names, columns = _label_columns(table, args.classes, args.labels, taken)
    spelling: dict[str, str] = {}
    for cell in table.columns[names] if names is not None else ():
        for name in _named(cell):
            spelling.setdefault(name.lower(), name)
    classes = list(columns) if names is None else sorted(spelling.values())
    if not classes:
        raise UsageError(f"{table.path}: column {names} names no class")
    builder = LabelledBuilder("labels", root, classes, join=names is not None or bool(sides))
    cells = {name: table.columns[name] for name in (image, patient, split, names, *columns.values(), *sides) if name}
    for place, line in enumerate(table.lines):
        row = {name: values[place] for name, values in cells.items()}
        where = f"{table.path}, line {line}"
        path = cell_text(row[image])
        if path is None:
            builder.reject(where, f"{image} is blank")
            continue
        if names is not None:
            own = {spelling[name.lower()] for name in _named(row[names])}
            labels = {name: float(name in own) for name in classes}
        else:
            found = {name: label_value(row[column], where, name) for name, column in columns.items()}
            labels = {name: value for name, value in found.items() if value is not None}
        box = _box([row[side] for side in sides], is_corners, where)
        marks = [MarkedBox(number, box) for number, name in enumerate(classes) if box and labels.get(name) == 1]
        if box and not marks:
            builder.reject(where, "a box without a class that is 1 in its row")
        patient_name = cell_text(row[patient]) if patient else None
        builder.add(path, labels, patient_name or "", cell_text(row[split]) if split else None, marks)
    builder.notes.append(f"images: column {image}; classes: {', '.join(classes)}")
    if split or ignored:
        builder.notes.append(ignored or f"split: column {split}")
    return builder.source()


def _label_columns(
    table: Table, classes: str | None, labels: str | None, taken: set[str | None]
) -> tuple[str | None, dict[str, str]]:
    """The column that lists names of classes, or the column of each class."""
    if classes is not None:
        wanted = [name.strip() for name in classes.split(",") if name.strip()]
        return None, {column: column for name in wanted if (column := table.find("--classes", name, ()))}
    column = table.find("--labels", labels, NAMES, required=False)
    if labels is not None or (column and column not in taken and not all(map(is_label, table.columns[column]))):
        return column, {}
    free = [name for name in table.columns if name not in taken and _key(name) not in _FACTS]
    found = {name: name for name in free if _is_class(table.columns[name])}
    if not found:
        raise UsageError(
            f"{table.path}: no column has labels (1, 0, -1, blank, yes, no, ...); name them with --classes A,B, or "
            f"name a column of class names with --labels; the table has {', '.join(table.columns)}"
        )
    return None, found


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def _is_class(cells: Sequence[Any]) -> bool:
    return all(map(is_label, cells)) and any(cell_text(cell) is not None for cell in cells)


def _named(cell: Any) -> list[str]:
    """The classes that a cell names; words that mean "no finding" name none."""
    return [name for name in split_names(cell) if name.lower() not in _NO_FINDING]


def _box_columns(table: Table, box: str | None, given_corners: str | None) -> tuple[list[str], bool]:
    """The four columns of a box, and whether they are corners; no columns if the table has no boxes."""
    if box is None and given_corners is None:
        for names, is_corners in BOXES:
            found = [table.find("--box", None, (name,), required=False) for name in names]
            if all(found):
                return [str(name) for name in found], is_corners
        return [], False
    option, given = ("--box", box) if box is not None else ("--corners", given_corners)
    wanted = [name.strip() for name in str(given).split(",")]
    if len(wanted) != 4:
        raise UsageError(f"{option} {given}: give four columns, separated by commas")
    return [str(table.find(option, name, ())) for name in wanted], given_corners is not None


def _box(cells: Sequence[Any], is_corners: bool, where: str) -> tuple[float, float, float, float] | None:
    """The box of a row; None if its cells are blank."""
    # pandas may have saved blank cells as words.
    texts = [None if is_label(cell) and label_value(cell, "", "") is None else cell_text(cell) for cell in cells]
    if not any(texts):
        return None
    try:
        x, y, width, height = (float(text) if text else math.nan for text in texts)
    except ValueError as error:
        raise UsageError(f"{where}: the box is {', '.join(map(str, cells))}, not four numbers") from error
    return corners(x, y, width, height) if is_corners else (x, y, width, height)
