"""Fast functions of a coordinate that changes linearly over an image."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Array = NDArray[np.float32]

# A quarter of a gray level at the sharpest edges, which are about four pixels wide.
_ENTRIES_PER_PIXEL = 8


@dataclass(frozen=True)
class Ramp:
    """A coordinate that changes linearly over an image, rounded to an eighth of a pixel.

    Each row of the image sees the same values, shifted. A function is therefore computed for a table of values, and
    each row is copied from the table. If the coordinate changes by a pixel from column to column, the table is sorted
    so that the values of a row are contiguous (`phases`); if it changes by less than an eighth, each value of the
    table is repeated (`repeats`).

    Attributes:
        table: the values of the coordinate, [n] float32, in equal steps.
        phases: a row has each `phases`-th value of the table.
        repeats: how many neighbours in a row have the same value.
        starts: where each row of the image begins in the table once it is sorted and repeated, [H].
        width: columns of the image.
    """

    table: Array
    phases: int
    repeats: int
    starts: NDArray[np.intp]
    width: int

    @classmethod
    def make(cls, shape: tuple[int, int], corner: float, down: float, right: float, pixel: float) -> "Ramp":
        """The ramp corner + row * down + column * right over an image of `shape`.

        pixel: the change over the length of a pixel in the steepest direction.
        """
        height, width = shape
        finest = pixel / _ENTRIES_PER_PIXEL
        sign = -1.0 if right < 0 else 1.0
        # A ramp that is nearly constant in a row is made steeper, by an eighth of a pixel over the whole row.
        step = max(abs(right), finest / width)
        phases, repeats = math.ceil(step / finest - 1e-6), max(1, int(finest / step))
        begins = sign * (corner + np.arange(height) * down)
        first = float(begins.min())
        starts, phase = np.divmod(np.rint((begins - first) * (phases / step)).astype(np.intp), phases)
        # The number of columns that the table has to serve, rounded up to whole repeats.
        count = -(-(int(starts.max()) + width) // repeats)
        index = np.arange(count * phases) * repeats + (repeats - 1) / 2
        table = sign * (first + index * (step / phases))
        return cls(table.astype(np.float32), phases, repeats, starts + phase * count, width)

    def crop(self, rows: slice, columns: slice) -> "Ramp":
        """The ramp over a part of the image."""
        return replace(self, starts=self.starts[rows] + columns.start, width=columns.stop - columns.start)

    def of(self, function: Callable[[Array], NDArray[Any]]) -> Array:
        """`function` of the coordinate at each pixel, [H, W]. It is called once, with `table`."""
        values: Array = function(self.table).astype(np.float32, copy=False)
        if self.phases > 1:
            values = values.reshape(-1, self.phases).T.ravel()
        elif self.repeats > 1:
            values = values.repeat(self.repeats)
        windows = as_strided(values, (len(values) - self.width + 1, self.width), values.strides * 2)
        return windows[self.starts]
