"""ChestX-Det10: images of NIH ChestX-ray14 with boxes of ten findings."""

import argparse

from prior_fast.errors import UsageError
from prior_fast.prepare.any_table import read_table
from prior_fast.prepare.labelled.boxes import MarkedBox, box_numbers, corners
from prior_fast.prepare.labelled.builder import LabelledBuilder
from prior_fast.prepare.labelled.files import need
from prior_fast.prepare.labelled.labelled_source import LabelledSource
from prior_fast.prepare.labelled.layouts.nih14 import SIZE

HELP = "ChestX-Det10: boxes of ten findings"
EXAMPLE = "--images chestx-det10"
IMAGES = "folder with train.json, test.json and the images, in any folders"

CLASSES = (
    *("Atelectasis", "Calcification", "Consolidation", "Effusion", "Emphysema", "Fibrosis", "Fracture", "Mass"),
    *("Nodule", "Pneumothorax"),
)


def read(args: argparse.Namespace) -> LabelledSource:
    """Read both lists: {"file_name": ..., "syms": [class, ...], "boxes": [[x1, y1, x2, y2], ...]}.

    Raises:
        UsageError: a list is missing, a class is unknown, or an image has not one box for each class name.
    """
    builder = LabelledBuilder("chestxdet10", args.images, CLASSES, box_size=SIZE)
    for part in ("train", "test"):
        table = read_table(need(args.images, f"{part}.json"), "--images")
        columns = (table.columns[str(table.find(name, None, (name,)))] for name in ("file_name", "syms", "boxes"))
        for line, name, findings, boxes in zip(table.lines, *columns):
            where = f"{table.path}, image {line}"
            if not (isinstance(name, str) and isinstance(findings, list) and isinstance(boxes, list)):
                raise UsageError(f"{where}: file_name must be a text, syms and boxes lists")
            if unknown := [finding for finding in findings if finding not in CLASSES]:
                raise UsageError(f"{where}: {unknown[0]!r} is none of {', '.join(CLASSES)}")
            if len(boxes) != len(findings) or any(not isinstance(box, list) or len(box) != 4 for box in boxes):
                raise UsageError(f"{where}: {len(findings)} syms and {len(boxes)} boxes; a box has four numbers")
            found = [corners(*box_numbers(box, where)) for box in boxes]
            marks = [MarkedBox(CLASSES.index(finding), box) for finding, box in zip(findings, found)]
            builder.add(name, {label: float(label in findings) for label in CLASSES}, part=part, boxes=marks)
    return builder.source("official")
