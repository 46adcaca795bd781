"""Boxes of findings: scaled to the model's image, averaged over readers, filled to masks."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from prior_fast.errors import UsageError
from prior_fast.prepare.labelled.labelled_source import Candidate, Decoded
from prior_fast.radiology.masks import Box, box_mask, encode_mask, scale_box

SMALL = "a box around no pixel's center at 224x224 became the pixel at its own center"
# Two readers' boxes of one finding are the same box from this intersection over union on.
_SAME = 0.5


class MarkedBox(NamedTuple):
    """A box in pixels of the file's image, of the class with this number."""

    number: int
    box: Box


def with_boxes(candidate: Candidate, image: np.ndarray, size: tuple[int, int], mask: bool) -> Decoded:
    """The decoded candidate with its boxes clipped to the image and scaled to 224x224.

    Args:
        candidate: its annotations are `MarkedBox`.
        size: (width, height) of the file's image in pixels.
        mask: whether the filled boxes become the mask.
    """
    scaled = [(mark, scale_box(mark.box, size)) for mark in candidate.annotations]
    inside = [(mark.number, box) for mark, box in scaled if box is not None]
    dropped = tuple(
        f"box {_words(mark.box)} is empty or outside {size[0]} x {size[1]}" for mark, box in scaled if box is None
    )
    if not inside:
        return Decoded(image, dropped=dropped)
    boxes, numbers = tuple(box for _, box in inside), tuple(number for number, _ in inside)
    filled, remarks = _fill(boxes) if mask else (None, ())
    return Decoded(image, boxes, filled, dropped, remarks, numbers)


def averaged(boxes: Sequence[MarkedBox]) -> list[MarkedBox]:
    """The boxes with those that several readers drew around one finding averaged. Boxes that are not finite are kept.

    A box joins the first group of its class whose average it overlaps with an intersection over union of 0.5 or more.
    """
    groups: list[tuple[int, list[Box]]] = []
    for number, box in boxes:
        finite = all(map(math.isfinite, box))
        group = next(
            (own for of, own in groups if finite and of == number and _overlap(_mean(own), box) >= _SAME),
            None,
        )
        if group is None:
            groups.append((number, [box]))
        else:
            group.append(box)
    return [MarkedBox(number, _mean(own)) for number, own in groups]


def box_numbers(cells: Sequence[Any], where: str) -> Box:
    """The four numbers of a box or of its corners.

    Args:
        where: the file and the line, for the error.

    Raises:
        UsageError: the cells are not four numbers.
    """
    try:
        x, y, third, fourth = (float(cell) for cell in cells)
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"{where}: the box is {', '.join(map(str, cells))[:200]}, not four numbers") from error
    return x, y, third, fourth


def corners(x1: float, y1: float, x2: float, y2: float) -> Box:
    """The box between two corners: x, y, width, height."""
    return x1, y1, x2 - x1, y2 - y1


def _fill(boxes: Sequence[Box]) -> tuple[bytes, tuple[str, ...]]:
    masks, remarks = [], set()
    for x, y, width, height in boxes:
        mask = box_mask(x, y, width, height)
        if not mask.any():
            mask[int(y + height / 2), int(x + width / 2)] = True
            remarks.add(SMALL)
        masks.append(mask)
    return encode_mask(np.logical_or.reduce(masks)), tuple(remarks)


def _mean(boxes: Sequence[Box]) -> Box:
    if len(boxes) == 1:
        return boxes[0]
    x, y, width, height = (math.fsum(side) / len(boxes) for side in zip(*boxes))
    return x, y, width, height


def _overlap(one: Box, other: Box) -> float:
    """The intersection over union of two boxes."""
    sides = [
        max(0.0, min(one[axis] + one[axis + 2], other[axis] + other[axis + 2]) - max(one[axis], other[axis]))
        for axis in (0, 1)
    ]
    common = sides[0] * sides[1]
    union = one[2] * one[3] + other[2] * other[3] - common
    return common / union if union > 0 else 0.0


def _words(box: Box) -> str:
    return " ".join(f"{value:g}" for value in box)
