"""The splits and the ground truth of a labelled dataset, for each task."""

from collections.abc import Sequence

import numpy as np

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.config import settings_of
from prior_fast.errors import UsageError
from prior_fast.radiology.labels import FIVE_CLASSES, present
from prior_fast.spelling import nearest

SIDE = 224


def choose_splits(dataset: LabelledDataset, task: str, names: Sequence[str]) -> tuple[str, ...]:
    """The named splits, or all of PRIOR's splits for the task.

    Raises:
        UsageError: the dataset has no split of a name, or no name is given and it has none of PRIOR's splits.
    """
    known = ", ".join(dataset.split_names) or "none"
    for name in names:
        if name not in dataset.split_names:
            raise UsageError(
                f"splits={name}: {dataset.root} has no such split{nearest(name, dataset.split_names) or '.'} "
                f"It has {known}."
            )
    prefix = settings_of(task).SPLITS
    chosen = tuple(names) or tuple(name for name in dataset.split_names if name.startswith(prefix))
    if not chosen:
        raise UsageError(
            f"{dataset.root} has none of PRIOR's splits for {task} ({prefix}...): name others with "
            f"splits=...; it has {known}"
        )
    return chosen


def choose_classes(dataset: LabelledDataset, names: Sequence[str]) -> tuple[str, ...]:
    """The named classes; by default the five of CheXpert 5x200 if the dataset has them all, else all its classes.

    Raises:
        UsageError: the dataset has no class of a name.
    """
    for name in names:
        if name not in dataset.classes:
            raise UsageError(
                f"classes={name}: {dataset.root} has no such class{nearest(name, dataset.classes) or '.'} "
                f"It has {', '.join(dataset.classes)}."
            )
    if names:
        return tuple(names)
    return FIVE_CLASSES if set(FIVE_CLASSES) <= set(dataset.classes) else dataset.classes


def class_truth(dataset: LabelledDataset, classes: Sequence[str]) -> np.ndarray:
    """Which classes each image has: bool [N, classes].

    Blank is absent; uncertain is present for Atelectasis, Edema and Pleural Effusion and absent for the others, as in
    CheXpert 5x200.
    """
    return present(dataset.labels, dataset.classes, classes)


def mask_truth(dataset: LabelledDataset, rows: np.ndarray) -> np.ndarray:
    """The masks of `rows`, in an array for all images of the dataset: uint8 [N, 224, 224], 0 or 1.

    Other rows stay 0 and take no memory.

    Raises:
        UsageError: the dataset has no masks.
    """
    if not dataset.has_masks:
        raise UsageError(f"{dataset.root} ({dataset.name}) has no masks: segmentation needs a dataset with masks")
    masks = np.zeros((len(dataset), SIDE, SIDE), np.uint8)
    for row in rows.tolist():
        mask = dataset.mask(row)
        if mask.any():
            masks[row] = mask
    return masks


def box_truth(dataset: LabelledDataset, rows: np.ndarray) -> dict[int, np.ndarray]:
    """The boxes of each of `rows`: float32 [K, 4], x1, y1, x2, y2 in pixels of the 224x224 image.

    Boxes are clipped to the image; boxes without area are then left out.

    Raises:
        UsageError: the dataset has no boxes, or those of several classes.
    """
    if dataset.has_boxes and len(dataset.classes) > 1:
        raise UsageError(
            f"{dataset.root} ({dataset.name}) has boxes of {len(dataset.classes)} classes: detection needs a dataset "
            "with one; prepare it with that class alone (`prior-fast prepare labels --classes CLASS`)"
        )
    if not dataset.has_boxes:
        raise UsageError(f"{dataset.root} ({dataset.name}) has no boxes: detection needs a dataset with boxes")
    found = {}
    for row in rows.tolist():
        boxes = dataset.boxes(row).copy()
        boxes[:, 2:] += boxes[:, :2]
        boxes = boxes.clip(0, SIDE)
        found[row] = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    return found


def require_positives(present: np.ndarray, part: str, what: str) -> None:
    """Raise UsageError if no image has a finding; part, what: names of the rows and of the finding for the message."""
    if not present.any():
        raise UsageError(
            f"none of the {len(present)} images of {part} has {what}: take a larger percent=... or another of "
            "splits=..."
        )
