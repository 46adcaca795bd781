"""Writing a labelled dataset, whole or not at all."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prior_fast.console import progress
from prior_fast.data.labelled_dataset import FORMAT, PARTS, PERCENTAGES, VERSION
from prior_fast.files import atomic_directory, write_text
from prior_fast.prepare.finish import check_contrast, files_of, write_info
from prior_fast.prepare.npy import GrayLevels, write_npy
from prior_fast.radiology.masks import Box
from prior_fast.radiology.xray import IMAGE_SIZE
from prior_fast.tables import csv_text


@dataclass(frozen=True)
class Record:
    """One image of a labelled dataset.

    Attributes:
        image_id, patient_id: as in `LabelledDataset`.
        labels: one for each class: 1, 0, -1 uncertain, nan blank.
        boxes: x, y, width, height in pixels of the 224x224 image.
        box_classes: the number of the class of each box.
        mask: a 1-bit PNG of 224x224 (`prior_fast.radiology.masks.encode_mask`); None without an annotation.
    """

    image_id: str
    patient_id: str
    labels: tuple[float, ...]
    boxes: tuple[Box, ...] = ()
    mask: bytes | None = None
    box_classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class SplitLists:
    """The image ids of a split's parts.

    Attributes:
        rule: a sentence that says how the split was drawn and who uses it.
        train: the ids for each percentage of `PERCENTAGES`.
    """

    rule: str
    train: Mapping[int, Sequence[str]]
    validate: Sequence[str]
    test: Sequence[str]


@dataclass(frozen=True)
class Contents:
    """The contents of a labelled dataset to write.

    Attributes:
        name: the source, "chexpert", "chexpert5x200", "rsna", "siim", "labels", ...
        splits: the splits, by name.
        rejected: file and reason of everything that was left out.
        facts: further entries of dataset.json.
        texts: further text files of the dataset, by name.
    """

    name: str
    classes: tuple[str, ...]
    records: Sequence[Record]
    splits: Mapping[str, SplitLists]
    has_boxes: bool = False
    has_masks: bool = False
    rejected: Sequence[tuple[str, str]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


def write_labelled(out: Path, contents: Contents, images: Iterable[np.ndarray], blocks: int) -> dict[str, Any]:
    """Write a labelled dataset to the folder `out`.

    Args:
        images: `blocks` arrays of uint8 [n, 224, 224]: together one image for each record, in their order.

    Returns:
        The content of dataset.json.

    Raises:
        UsageError: the images are all of one gray level.
        RunError: the disk is full.
    """
    records = contents.records
    with atomic_directory(out) as folder, progress() as bar:
        writing = bar.add_task("writing", total=blocks)
        mean, std = _write_images(folder / "images.npy", len(records), images, lambda: bar.advance(writing))
        pq.write_table(_manifest(records), folder / "manifest.parquet")
        for name, split in contents.splits.items():
            _write_lists(folder / "splits" / name, split)
        write_rejected(folder / "rejected.csv", contents.rejected)
        for name, text in contents.texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        info = {
            "format": FORMAT,
            "version": VERSION,
            "name": contents.name,
            "classes": list(contents.classes),
            "images": len(records),
            "patients": len({record.patient_id for record in records}),
            "image_mean": mean,
            "image_std": std,
            "has_boxes": contents.has_boxes,
            "has_masks": contents.has_masks,
            "splits": {name: _describe(split) for name, split in contents.splits.items()},
            "rejected": len(contents.rejected),
            **contents.facts,
        }
        hashing = bar.add_task("hashing", total=len(files_of(folder)))
        return write_info(folder, info, lambda: bar.advance(hashing))


def write_rejected(path: Path, rejected: Sequence[tuple[str, str]]) -> None:
    """Write file and reason of everything that was left out, sorted, as csv."""
    write_text(path, csv_text([("file", "reason"), *sorted(rejected)]))


def _write_images(
    path: Path, count: int, images: Iterable[np.ndarray], advance: Callable[[], object]
) -> tuple[float, float]:
    levels = GrayLevels()

    def blocks() -> Iterator[np.ndarray]:
        for block in images:
            levels.add(block)
            yield block
            advance()

    write_npy(path, np.dtype(np.uint8), (count, IMAGE_SIZE, IMAGE_SIZE), blocks())
    mean, std = levels.mean_and_std()
    check_contrast(mean, std, "all images")
    return mean, std


def _manifest(records: Sequence[Record]) -> pa.Table:
    return pa.table(
        {
            "image_id": pa.array([record.image_id for record in records], pa.string()),
            "patient_id": pa.array([record.patient_id for record in records], pa.string()),
            "labels": pa.array([list(record.labels) for record in records], pa.list_(pa.float32())),
            "boxes": pa.array([[*map(list, record.boxes)] for record in records], pa.list_(pa.list_(pa.float32()))),
            "box_classes": pa.array([list(record.box_classes) for record in records], pa.list_(pa.int32())),
            "mask": pa.array([record.mask for record in records], pa.binary()),
        }
    )


def _lists(split: SplitLists) -> dict[str, Sequence[str]]:
    train = {("train" if p == 100 else f"train-{p}"): split.train[p] for p in PERCENTAGES}
    return {**train, PARTS[1]: split.validate, PARTS[2]: split.test}


def _write_lists(folder: Path, split: SplitLists) -> None:
    folder.mkdir(parents=True)
    for part, names in _lists(split).items():
        (folder / f"{part}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _describe(split: SplitLists) -> dict[str, Any]:
    return {"rule": split.rule, **{part: len(names) for part, names in _lists(split).items()}}
