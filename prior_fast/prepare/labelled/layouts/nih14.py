"""NIH ChestX-ray14: 14 labels, the official split, and boxes of some images."""

import argparse
from pathlib import Path

from prior_fast.errors import UsageError
from prior_fast.prepare.any_table import read_table
from prior_fast.prepare.label_words import split_names
from prior_fast.prepare.labelled.boxes import MarkedBox, box_numbers
from prior_fast.prepare.labelled.builder import LabelledBuilder
from prior_fast.prepare.labelled.files import need, read_text
from prior_fast.prepare.labelled.labelled_source import LabelledSource

HELP = "NIH ChestX-ray14: 14 labels, the official split, boxes"
EXAMPLE = "--images nih"
IMAGES = "folder with Data_Entry_2017(_v2020).csv, train_val_list.txt, test_list.txt and the images, in any folders"

CLASSES = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
ENTRIES, BOXES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv"), "BBox_List_2017.csv"
TRAIN, TEST = "train_val_list.txt", "test_list.txt"
_BOX_NAMES = {"Infiltrate": "Infiltration"}
# Boxes are in pixels of the published PNG files, also where the files here are smaller copies.
SIZE = (1024, 1024)


def read(args: argparse.Namespace) -> LabelledSource:
    """Read the tables. The split "official" holds out a validation part by patient.

    Raises:
        UsageError: a table or a list is missing, or a label is unknown.
    """
    root = args.images
    table = read_table(need(root, *ENTRIES), "--images")
    part_of = dict.fromkeys(read_text(need(root, TRAIN)).split(), "train")
    part_of |= dict.fromkeys(read_text(need(root, TEST)).split(), "test")
    columns = [
        table.texts(str(table.find(name, None, (name,)))) for name in ("Image Index", "Finding Labels", "Patient ID")
    ]
    boxes = _boxes(root)
    builder = LabelledBuilder("nih14", root, CLASSES, box_size=SIZE)
    for line, name, labels, patient in zip(table.lines, *columns):
        found = [label for label in split_names(labels) if label != "No Finding"]
        if unknown := [label for label in found if label not in CLASSES]:
            raise UsageError(f"{table.path}, line {line}: {unknown[0]!r} is none of {', '.join(CLASSES)}")
        if name not in part_of:
            builder.reject(str(name), f"in neither {TRAIN} nor {TEST}")
            continue
        values = {label: float(label in found) for label in CLASSES}
        builder.add(name, values, str(patient), part_of[name], boxes.get(name, ()))
    return builder.source("official")


def _boxes(root: Path) -> dict[str, list[MarkedBox]]:
    """The boxes of each image. The header names three columns for four numbers: `Bbox [x`, `y`, `w`, `h]`."""
    path = root / BOXES
    if not path.is_file():
        return {}
    table = read_table(path, "--images")
    names = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
    boxes: dict[str, list[MarkedBox]] = {}
    for line, name, label, *sides in zip(table.lines, *table.needed(*names)):
        finding = _BOX_NAMES.get(str(label), str(label))
        if finding not in CLASSES:
            raise UsageError(f"{path}, line {line}: {label!r} is none of {', '.join(CLASSES)}")
        box = box_numbers(sides, f"{path}, line {line}")
        boxes.setdefault(str(name), []).append(MarkedBox(CLASSES.index(finding), box))
    return boxes
