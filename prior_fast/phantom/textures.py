"""The pixels of a drawing in patient units, soft edges, and smooth noise."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prior_fast.phantom.ramp import Array, Ramp

Box = tuple[slice, slice]
"""Rows and columns of a part of an image, with steps of 1 and neither open nor negative ends."""


@dataclass(frozen=True)
class Grid:
    """The pixels of an image in patient units: the midline is x = 0, the thorax is about 1 wide on each side of it.

    x grows towards the patient's left, which is the image's right; y grows towards the feet.

    Attributes:
        x, y: [H, W] float32.
        scale: pixels per unit.
        origin: pixel (column, row) of x = y = 0.
        angle: rotation of the patient in radians, clockwise as seen.
        x_ramp, y_ramp: x and y, for fast functions of one of them.
    """

    x: Array
    y: Array
    scale: float
    origin: tuple[float, float]
    angle: float
    x_ramp: Ramp
    y_ramp: Ramp

    @classmethod
    def make(cls, shape: tuple[int, int], scale: float, origin: tuple[float, float], angle: float) -> "Grid":
        cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
        # Column and row, each from the origin.
        right, down = np.arange(shape[1]) - origin[0], np.arange(shape[0])[:, None] - origin[1]
        x = (right * cos).astype(np.float32) + (down * sin).astype(np.float32)
        y = (down * cos).astype(np.float32) - (right * sin).astype(np.float32)
        x_ramp = Ramp.make(shape, -origin[0] * cos - origin[1] * sin, sin, cos, 1 / scale)
        y_ramp = Ramp.make(shape, origin[0] * sin - origin[1] * cos, cos, -sin, 1 / scale)
        return cls(x, y, scale, origin, angle, x_ramp, y_ramp)

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape[0], self.x.shape[1]

    def to_pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (column, row) [n, 2] of `points` [n, 2] in patient units."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = points @ np.array([[cos, sin], [-sin, cos]])
        return turned * self.scale + np.array(self.origin)

    def box(self, x: tuple[float, float], y: tuple[float, float]) -> Box:
        """The smallest box that has all pixels of the image with these ranges of x and y."""
        cos, sin = math.cos(self.angle) * self.scale, math.sin(self.angle) * self.scale
        columns = [self.origin[0] + a * cos - b * sin for a in x for b in y]
        rows = [self.origin[1] + a * sin + b * cos for a in x for b in y]
        return clip_box(min(rows), max(rows), min(columns), max(columns), self.shape)

    def crop(self, box: Box) -> "Grid":
        """The grid of the pixels in `box`. It shares the memory of this one."""
        origin = self.origin[0] - box[1].start, self.origin[1] - box[0].start
        x_ramp, y_ramp = self.x_ramp.crop(*box), self.y_ramp.crop(*box)
        return Grid(self.x[box], self.y[box], self.scale, origin, self.angle, x_ramp, y_ramp)

    def of_x(self, function: Callable[[Array], NDArray[Any]]) -> Array:
        """`function` of each pixel's x, [H, W] float32. It is called once, with a table of values of x."""
        return self.x_ramp.of(function)

    def of_y(self, function: Callable[[Array], NDArray[Any]]) -> Array:
        """`function` of each pixel's y, [H, W] float32. It is called once, with a table of values of y."""
        return self.y_ramp.of(function)


@cache
def keep_freed_memory() -> None:
    """Have the C library keep the memory of freed arrays for the next ones, which saves a tenth of the time.

    glibc returns a freed block of 128 KiB or more to the system, which clears its pages when they are next used. Once
    a larger block was freed, smaller ones are kept (M_MMAP_THRESHOLD in mallopt(3)). No page of this one is used.
    """
    np.empty(1 << 24, np.uint8)


def clip_box(top: float, bottom: float, left: float, right: float, shape: tuple[int, ...]) -> Box:
    """The pixels of an image of `shape` from row `top` to `bottom` and column `left` to `right`; it can be empty."""
    ends = []
    for low, high, extent in ((top, bottom, shape[0]), (left, right, shape[1])):
        begin = min(max(math.floor(low), 0), extent)
        ends.append(slice(begin, min(max(math.ceil(high) + 1, begin), extent)))
    return ends[0], ends[1]


def smoothstep(value: NDArray[Any]) -> Array:
    """0 below 0, 1 above 1, and smooth in between."""
    t: Array = np.clip(value, 0, 1).astype(np.float32, copy=False)
    slope = t * np.float32(-2)
    slope += 3
    t *= t
    t *= slope
    return t


@dataclass(frozen=True)
class Noise:
    """Smooth noise of about unit variance over an image of `shape`. It is computed only where it is asked for.

    Attributes:
        coarse: a value for each blob, [h, w] float32.
    """

    coarse: Image.Image
    shape: tuple[int, int]

    @classmethod
    def draw(cls, rng: np.random.Generator, shape: tuple[int, int], cell: float) -> "Noise":
        """Noise whose blobs are `cell` pixels wide."""
        rows, columns = (max(2, round(extent / cell) + 2) for extent in shape)
        # Bicubic interpolation of white noise keeps about two thirds of its standard deviation.
        return cls(Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(1.5)), shape)

    def __getitem__(self, box: Box) -> Array:
        """The noise in `box`, [h, w]."""
        (top, bottom, _), (left, right, _) = (part.indices(extent) for part, extent in zip(box, self.shape))
        if top == bottom or left == right:
            return np.zeros((bottom - top, right - left), np.float32)
        across, down = self.coarse.width / self.shape[1], self.coarse.height / self.shape[0]
        source = left * across, top * down, right * across, bottom * down
        return np.asarray(self.coarse.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=source))

    def stretched(self, shape: tuple[int, int]) -> Array:
        """The noise over the whole image at another `shape`. It is fast if there are few blobs from top to bottom."""
        height, width = shape
        count = self.coarse.height
        rows = np.asarray(self.coarse.resize((width, count), Image.Resampling.BICUBIC))
        # What each row of blobs gives to each row of the image.
        shares = Image.fromarray(np.eye(count, dtype=np.float32)).resize((count, height), Image.Resampling.BICUBIC)
        total = np.zeros(shape, np.float32)
        for share, row in zip(np.asarray(shares).T, rows):
            total += share[:, None] * row
        return total
