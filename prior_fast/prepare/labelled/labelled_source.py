"""What a reader of a labelled dataset hands to the pipeline; light, since every worker process imports it."""

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
        path: its file.
        image_id, patient_id, labels: as `Record` has them.
        annotations: what the tables say of where the finding is, for the source's own `decode`.
    """

    path: Path
    image_id: str
    patient_id: str
    labels: tuple[float, ...]
    annotations: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """What became of a candidate.

    Attributes:
        image: uint8 [224, 224].
        boxes, mask: as `Record` has them.
        dropped: a reason for each mark that can't be used; they become lines of rejected.csv.
        remarks: what was done to the image beyond resizing it; equal remarks are counted in a note.
    """

    image: np.ndarray
    boxes: tuple[Box, ...] = ()
    mask: bytes | None = None
    dropped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelledSource:
    """A dataset as its tables describe it.

    Attributes:
        root: the folder that rejected.csv's files are relative to.
        candidates: in the order of the dataset to be; their ids are unique.
        decode: a function of a module, since worker processes import it; raises `UnreadableImage`.
        splits: from the images that could be decoded to the splits, by name.
        positive: whether a record counts as one where lists keep the share of positives.
        rejected: file (or id) and reason of what the tables alone leave out.
        notes: lines for the user.
        facts: more for dataset.json.
        texts: more files, by name.
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
