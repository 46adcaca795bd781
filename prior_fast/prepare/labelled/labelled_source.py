"""The data that a dataset's reader passes to the pipeline. Every worker process imports this module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prior_fast.prepare.labelled.splits import Pool
from prior_fast.prepare.labelled.write import Record, SplitLists
from prior_fast.radiology.masks import Box


@dataclass(frozen=True)
class Candidate:
    """An image that the source's tables name, before it is decoded.

    Attributes:
        path: the file of the image.
        image_id, patient_id, labels: as in `Record`.
        annotations: boxes or encoded masks from the tables, in the form that the source's `decode` reads.
    """

    path: Path
    image_id: str
    patient_id: str
    labels: tuple[float, ...]
    annotations: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """A decoded candidate.

    Attributes:
        image: uint8 [224, 224].
        boxes, mask, box_classes: as in `Record`.
        dropped: a reason for each annotation that can't be used; the reasons become lines of rejected.csv.
        remarks: what was changed besides the size; equal remarks are counted in a note.
    """

    image: np.ndarray
    boxes: tuple[Box, ...] = ()
    mask: bytes | None = None
    dropped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    box_classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class LabelledSource:
    """A dataset as its tables describe it.

    Attributes:
        root: the folder to which the paths in rejected.csv are relative.
        candidates: in the order of the new dataset; their ids are unique.
        decode: a module-level function, because worker processes import it; raises `UnreadableImage`.
        splits: makes the splits, by name, of the images that could be decoded.
        positive: whether a record counts as positive in lists that keep the share of positives.
        rejected: file (or id) and reason of images that are left out because of the tables.
        notes: lines for the user.
        facts: further entries of dataset.json.
        texts: further text files, by name.
    """

    name: str
    classes: tuple[str, ...]
    root: Path
    candidates: Sequence[Candidate]
    decode: Callable[[Candidate], Decoded]
    splits: Callable[[Pool], Mapping[str, SplitLists]]
    positive: Callable[[Record], bool] = lambda record: record.labels[0] == 1
    has_boxes: bool = False
    has_masks: bool = False
    rejected: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
