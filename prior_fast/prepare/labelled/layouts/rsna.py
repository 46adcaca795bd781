"""RSNA Pneumonia Detection, stage 2: images with boxes around lung opacities."""

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from prior_fast.errors import UsageError
from prior_fast.prepare.csv_tables import read_rows
from prior_fast.prepare.labelled import splits
from prior_fast.prepare.labelled.boxes import MarkedBox, with_boxes
from prior_fast.prepare.labelled.files import compare_files, need
from prior_fast.prepare.labelled.labelled_source import Candidate, Decoded, LabelledSource
from prior_fast.prepare.labelled.splits import Pool
from prior_fast.prepare.labelled.write import SplitLists
from prior_fast.radiology.xray import UnreadableImage

HELP = "RSNA Pneumonia Detection, stage 2: boxes"
EXAMPLE = "--images rsna"
IMAGES = "folder with stage_2_train_images/ and stage_2_train_labels.csv"

CLASSES = ("Pneumonia",)
FOLDER, LABELS, DETAILS = "stage_2_train_images", "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"

FullBox = tuple[float, float, float, float]


def read(args: argparse.Namespace) -> LabelledSource:
    """The dataset that the arguments name."""
    return read_rsna(args.images)


def read_rsna(images: Path) -> LabelledSource:
    """Read RSNA's tables. A patientId has one image; several rows of it are the boxes of this image.

    Raises:
        UsageError: a folder or a table is missing or can't be used.
    """
    folder, table = need(images, FOLDER), need(images, LABELS)
    boxes_of, rejected = _read_boxes(table)
    files, missing, notes = compare_files(boxes_of, folder.glob("*.dcm"))
    rejected += [(name, "no DICOM") for name in missing]
    candidates = [
        Candidate(files[name], name, name, (float(bool(boxes)),), tuple(MarkedBox(0, box) for box in boxes))
        for name in sorted(files)
        for boxes in [boxes_of[name]]
    ]
    facts = {"detailed_classes": _count_details(images / DETAILS)} if (images / DETAILS).is_file() else {}
    return LabelledSource(
        *("rsna", CLASSES, images, candidates, decode, make_splits),
        has_boxes=True,
        has_masks=True,
        rejected=rejected,
        notes=notes,
        facts=facts,
    )


def decode(candidate: Candidate) -> Decoded:
    """Decode the image, clip its boxes to the image, and fill them to make the mask.

    Raises:
        UnreadableImage: the file is broken, or no box of a positive image lies inside the image.
    """
    from prior_fast.radiology.dicom import read_dicom

    decoded = with_boxes(candidate, *read_dicom(candidate.path), mask=True)
    if candidate.annotations and not decoded.boxes:
        raise UnreadableImage(f"no box left: {decoded.dropped[0]}")
    return decoded


def make_splits(pool: Pool) -> Mapping[str, SplitLists]:
    """All splits of RSNA; a patient has one image."""
    return {
        **splits.prior_splits(pool),
        **splits.fold_splits(pool),
        "mgca": splits.mgca_split(pool, ""),
        "benchx": splits.benchx_split(pool),
    }


def _read_boxes(path: Path) -> tuple[dict[str, list[FullBox]], list[tuple[str, str]]]:
    """The boxes of each image (none for a negative image), and the images whose rows contradict each other."""
    sides = ("x", "y", "width", "height")
    types = {"patientId": pa.string(), **dict.fromkeys(sides, pa.float64()), "Target": pa.float64()}
    columns = read_rows(path, types, nullable=sides, labels=("Target",))
    boxes_of: dict[str, list[FullBox]] = {}
    targets: dict[str, set[float]] = {}
    for line, (name, *box, target) in enumerate(zip(*columns.values()), 2):
        if target not in (0, 1):
            raise UsageError(f"{path}, line {line}: Target is {target:g}, not 0 or 1")
        targets.setdefault(name, set()).add(target)
        boxes = boxes_of.setdefault(name, [])
        if target and any(value is not None for value in box):
            full = tuple(math.nan if value is None else value for value in box)
            if full not in boxes:
                boxes.append(full)  # type: ignore[arg-type]
    reasons = {name: _contradiction(targets[name], boxes) for name, boxes in boxes_of.items()}
    kept = {name: boxes for name, boxes in boxes_of.items() if reasons[name] is None}
    return kept, [(name, reason) for name, reason in reasons.items() if reason]


def _contradiction(targets: set[float], boxes: Sequence[FullBox]) -> str | None:
    if len(targets) > 1:
        return "its rows have Target 0 and 1"
    return "Target is 1 without a box" if targets == {1} and not boxes else None


def _count_details(path: Path) -> dict[str, int]:
    columns = read_rows(path, {"patientId": pa.string(), "class": pa.string()})
    return dict(sorted(Counter(dict(zip(columns["patientId"], columns["class"])).values()).items()))
