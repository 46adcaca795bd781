"""SIIM-ACR Pneumothorax Segmentation: images with masks."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from prior_fast.prepare.csv_tables import read_rows
from prior_fast.prepare.labelled import splits
from prior_fast.prepare.labelled.files import compare_files, need
from prior_fast.prepare.labelled.labelled_source import Candidate, Decoded, LabelledSource
from prior_fast.prepare.labelled.splits import Pool
from prior_fast.prepare.labelled.write import SplitLists
from prior_fast.radiology.masks import encode_mask, shrink_mask
from prior_fast.radiology.rle import decode_rle
from prior_fast.radiology.xray import UnreadableImage

HELP = "SIIM-ACR Pneumothorax Segmentation: masks"
EXAMPLE = "--images siim"
IMAGES = "folder with dicom-images-train/ and train-rle.csv or stage_2_train.csv"

CLASSES = ("Pneumothorax",)
# The table of stage 2 includes the test images of stage 1, whose files are in a separate folder.
FOLDERS = {"train-rle.csv": ("dicom-images-train",), "stage_2_train.csv": ("dicom-images-train", "dicom-images-test")}
_NEGATIVE = "-1"
_SAVED = "a mask that covers half of no pixel at 224x224 kept the pixels with the greatest share"


def read(args: argparse.Namespace) -> LabelledSource:
    """The dataset that the arguments name."""
    return read_siim(args.images)


def read_siim(images: Path) -> LabelledSource:
    """Read SIIM-ACR's table. Several rows of one image are parts of its mask.

    Raises:
        UsageError: a folder or the table is missing or can't be used.
    """
    table = need(images, *FOLDERS)
    columns = read_rows(table, {"ImageId": pa.string(), "EncodedPixels": pa.string()}, nullable=("EncodedPixels",))
    parts_of: dict[str, list[str]] = {}
    for name, text in zip(columns["ImageId"], columns["EncodedPixels"]):
        parts = parts_of.setdefault(name.strip(), [])
        if (stripped := (text or "").strip()) != _NEGATIVE:
            parts.append(stripped)
    need(images, FOLDERS[table.name][0])
    found = (path for folder in FOLDERS[table.name] for path in (images / folder).rglob("*.dcm"))
    files, missing, notes = compare_files(parts_of, found)
    candidates = [
        Candidate(files[name], name, name, (float(bool(parts_of[name])),), tuple(parts_of[name]))
        for name in sorted(files)
    ]
    return LabelledSource(
        *("siim", CLASSES, images, candidates, decode, make_splits),
        has_masks=True,
        rejected=[(name, "no DICOM") for name in missing],
        notes=[f"masks are those of {table.name}", *notes],
    )


def decode(candidate: Candidate) -> Decoded:
    """Decode the image and the union of its masks.

    Raises:
        UnreadableImage: the file is broken, or a part of the mask can't be decoded or has no pixel.
    """
    from prior_fast.radiology.dicom import read_dicom

    image, (width, height) = read_dicom(candidate.path)
    if not candidate.annotations:
        return Decoded(image)
    try:
        full = np.logical_or.reduce([decode_rle(part, height, width) for part in candidate.annotations])
    except ValueError as error:
        raise UnreadableImage(str(error)) from error
    if not full.any():
        raise UnreadableImage("the RLE sets no pixel")
    mask, saved = shrink_mask(full)
    return Decoded(image, mask=encode_mask(mask), remarks=(_SAVED,) if saved else ())


def make_splits(pool: Pool) -> Mapping[str, SplitLists]:
    """All splits of SIIM-ACR, by image; the source names no patients."""
    remark = " for RSNA; by image here, while MGCA's own list of SIIM cuts rows of the table, so that an image with "
    return {
        **splits.prior_splits(pool),
        **splits.fold_splits(pool),
        "mgca": splits.mgca_split(pool, f"{remark}several rows may be in two parts"),
        "benchx": splits.benchx_split(pool),
    }
