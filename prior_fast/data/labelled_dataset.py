"""Labelled datasets, for the downstream tasks: images with labels, boxes and masks, without reports.

`prior-fast prepare` makes them from a table or from public datasets. Their files are described in docs/datasets.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prior_fast.data.columns import BOXES, INTEGERS, MASK, NUMBERS, TEXT, column_names
from prior_fast.data.dataset_checks import (
    COUNT,
    LEVEL,
    NAMES,
    OBJECT,
    SWITCH,
    check_entries,
    check_files,
    check_listed,
)
from prior_fast.data.dataset_checks import TEXT as WORD
from prior_fast.data.dataset_folder import INFO_FILE, DatasetFolder, Verify, check_format, read_info, read_mask
from prior_fast.errors import UsageError
from prior_fast.spelling import nearest

FORMAT, VERSION = "prior-fast-labelled", 1
PARTS = ("train", "validate", "test")
# Percentages of the training part that have lists of their own.
PERCENTAGES = (1, 10, 100)
# The entries of dataset.json, and the files, without which a dataset can't be used.
ENTRIES = {
    "name": WORD,
    "classes": NAMES,
    "images": COUNT,
    **dict.fromkeys(("image_mean", "image_std"), LEVEL),
    **dict.fromkeys(("has_boxes", "has_masks"), SWITCH),
    "splits": OBJECT,
}
FILES = ("images.npy", "manifest.parquet")


@dataclass(frozen=True)
class Split:
    """The rows of a split's parts: int64 [.] each, in the order of the lists."""

    train: np.ndarray
    validate: np.ndarray
    test: np.ndarray


class LabelledDataset(DatasetFolder):
    """Images with labels, and with boxes or masks if the source has them.

    Attributes:
        root: the dataset's folder.
        info: the content of dataset.json.
        classes: names of the labels' columns.
        image_ids: the source's id of each image; unique.
        patient_ids: the patient of each image; the image's own id if the source names no patient.
        labels: float32 [N, C], as in the source: 1 present, 0 absent, -1 uncertain, nan blank.
        images: uint8 [N, 224, 224], memory-mapped.
    """

    def __init__(self, root: Path, info: dict[str, Any]) -> None:
        """Use `LabelledDataset.open`, which checks the files first."""
        super().__init__(root, info)
        self.classes: tuple[str, ...] = tuple(info["classes"])
        table = self.read_manifest({"image_id": TEXT, "patient_id": TEXT, "labels": NUMBERS})
        self.image_ids: list[str] = table["image_id"].to_pylist()
        self.patient_ids: list[str] = table["patient_id"].to_pylist()
        self._check_rows(table["labels"])
        flat = table["labels"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        self.labels: np.ndarray = flat.astype(np.float32).reshape(len(self.image_ids), len(self.classes))

    @classmethod
    def open(cls, path: Path | str, verify: Verify = "sizes") -> "LabelledDataset":
        """Open the dataset at `path`.

        Args:
            verify: "sizes" checks that each file exists and has its size; "full" also compares SHA-256.

        Raises:
            UsageError: there is no labelled dataset, or a file is missing, truncated or changed.
        """
        root = Path(path)
        info = read_info(root)
        check_format(root, info, FORMAT, VERSION, "prior-fast prepare labels")
        check_entries(root, info, ENTRIES)
        check_listed(root, info, FILES)
        check_files(root, info, verify)
        return cls(root, info)

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def name(self) -> str:
        """The source: "chexpert", "chexpert5x200", "rsna", "siim", "labels", ..."""
        return self.info["name"]

    @property
    def has_boxes(self) -> bool:
        """Whether the source has boxes of findings."""
        return self.info["has_boxes"]

    @property
    def has_masks(self) -> bool:
        """Whether the source has masks of findings, or boxes, which become masks when filled."""
        return self.info["has_masks"]

    def boxes(self, row: int) -> np.ndarray:
        """The boxes of an image: float32 [K, 4], x, y, width, height in pixels of the 224x224 image."""
        found = self._boxes[row].as_py()
        if any(len(box) != 4 for box in found):
            raise UsageError(f"{self._path}: a box of row {row} has not 4 numbers; prepare the dataset again")
        boxes = np.array(found, np.float32).reshape(-1, 4)
        if not np.isfinite(boxes).all():
            raise UsageError(f"{self._path}: a box of row {row} is not finite; prepare the dataset again")
        return boxes

    def box_classes(self, row: int) -> np.ndarray:
        """The class of each box of an image, as a number in `classes`: int64 [K]."""
        if self._box_classes is None:
            return np.zeros(len(self.boxes(row)), np.int64)
        classes = np.array(self._box_classes[row].as_py(), np.int64)
        if ((classes < 0) | (classes >= len(self.classes))).any():
            raise UsageError(
                f"{self._path}: a box of row {row} is of class {classes.max()}, but there are {len(self.classes)} "
                "classes; prepare the dataset again"
            )
        return classes

    def mask(self, row: int) -> np.ndarray:
        """The union of an image's masks: bool [224, 224]."""
        encoded = self._masks[row].as_py()
        return np.zeros((224, 224), bool) if encoded is None else read_mask(self._path, row, encoded)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that `prepare` wrote."""
        return tuple(self.info["splits"])

    def split(self, name: str, percent: int = 100) -> Split:
        """The rows of a split's parts. The training part is the list for `percent`.

        Raises:
            UsageError: the split or percentage does not exist, or a list names an unknown image.
        """
        if name not in self.split_names:
            hint, known = nearest(name, self.split_names) or ".", ", ".join(self.split_names)
            raise UsageError(f"{self.root} has no split {name!r}{hint} It has {known}.")
        if percent not in PERCENTAGES:
            raise UsageError(f"percent={percent}: choose from {', '.join(map(str, PERCENTAGES))}")
        train = "train" if percent == 100 else f"train-{percent}"
        return Split(*(self._rows(self.root / "splits" / name / f"{part}.txt") for part in (train, *PARTS[1:])))

    def rows_of(self, image_ids: Sequence[str], where: str) -> np.ndarray:
        """The rows of images by their ids: int64 [len(image_ids)].

        Raises:
            UsageError: an id is not in the dataset; the message names `where`, the origin of the ids.
        """
        unknown = [name for name in image_ids if name not in self._row_of]
        if unknown:
            raise UsageError(f"{where} names {unknown[0]!r} and {len(unknown) - 1} more that are not in {self.root}")
        return np.array([self._row_of[name] for name in image_ids], np.int64)

    def _rows(self, path: Path) -> np.ndarray:
        name = path.relative_to(self.root).as_posix()
        if name not in self.info["files"]:
            raise UsageError(f"{self.root / INFO_FILE} does not list {name} in 'files'; prepare the dataset again")
        try:
            names = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} can't be read ({error}); prepare the dataset again") from None
        return self.rows_of([name for name in names if name], str(path))

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.image_ids)}

    @cached_property
    def _boxes(self) -> pa.ChunkedArray:
        return self.read_manifest({"boxes": BOXES})["boxes"]

    @cached_property
    def _box_classes(self) -> pa.ChunkedArray | None:
        """None in a dataset that was prepared before boxes had classes; its source has one class."""
        if "box_classes" not in column_names(self._path):
            return None
        return self.read_manifest({"box_classes": INTEGERS})["box_classes"]

    @cached_property
    def _masks(self) -> pa.ChunkedArray:
        return self.read_manifest({"mask": MASK})["mask"]

    @property
    def _path(self) -> Path:
        return self.root / "manifest.parquet"

    def _check_rows(self, labels: pa.ChunkedArray) -> None:
        """Raise UsageError unless the rows of the manifest fit dataset.json and each names its own image."""
        count = len(self.image_ids)
        if count != self.info["images"]:
            raise UsageError(f"{self._path} has {count} images, not {self.info['images']}; prepare the dataset again")
        if len(set(self.image_ids)) < count:
            raise UsageError(f"{self._path}: the column 'image_id' names an image twice; prepare the dataset again")
        lengths = pc.fill_null(pc.list_value_length(labels), 0).to_numpy()
        if (lengths != len(self.classes)).any():
            row = int((lengths != len(self.classes)).argmax())
            raise UsageError(
                f"{self._path}: the column 'labels' has {lengths[row]} entries in row {row}, but {INFO_FILE} has "
                f"{len(self.classes)} 'classes'; prepare the dataset again"
            )
