"""The drawing functions of the phantom: soft edges, smooth noise, branching lines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float32]
Line = tuple[NDArray[np.float64], float, float]
"""Points [n, 2] in patient units, width in patient units, strength in [0, 1]."""


@dataclass(frozen=True)
class Grid:
    """The pixels of an image in patient units: the midline is x = 0, the thorax is about 1 wide on each side of it.

    x grows towards the patient's left, which is the image's right; y grows towards the feet.

    Attributes:
        x, y: [H, W] float32.
        scale: pixels per unit.
        origin: pixel (column, row) of x = y = 0.
        angle: rotation of the patient in radians, clockwise as seen.
    """

    x: Array
    y: Array
    scale: float
    origin: tuple[float, float]
    angle: float

    @classmethod
    def make(cls, shape: tuple[int, int], scale: float, origin: tuple[float, float], angle: float) -> "Grid":
        rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        right, down = (columns - origin[0]) / scale, (rows - origin[1]) / scale
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return cls(right * cos + down * sin, down * cos - right * sin, scale, origin, angle)

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape[0], self.x.shape[1]

    def to_pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (column, row) [n, 2] of `points` [n, 2] in patient units."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = points @ np.array([[cos, sin], [-sin, cos]])
        return turned * self.scale + np.array(self.origin)


def smoothstep(value: NDArray[Any]) -> Array:
    """0 below 0, 1 above 1, and smooth in between."""
    t = np.clip(value, 0, 1).astype(np.float32, copy=False)
    return t * t * (3 - 2 * t)


def noise_field(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Array:
    """Smooth noise [H, W] of about unit variance whose blobs are `cell` pixels wide."""
    rows, columns = (max(2, round(extent / cell) + 2) for extent in shape)
    coarse = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    # Bicubic interpolation of white noise keeps about two thirds of its standard deviation.
    return np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC), np.float32) * np.float32(1.5)


def draw_lines(grid: Grid, lines: Iterable[Line], blur: float = 0.7) -> Array:
    """Lines [H, W] in [0, 1], edges blurred by `blur` pixels."""
    canvas = Image.new("L", (grid.shape[1], grid.shape[0]))
    pen = ImageDraw.Draw(canvas)
    lines = list(lines)
    ends = np.cumsum([len(points) for points, _, _ in lines])[:-1]
    pixels = np.split(grid.to_pixels(np.concatenate([points for points, _, _ in lines])), ends)
    for (_, width, strength), line in zip(lines, pixels):
        thickness = max(1, round(width * grid.scale))
        # Joints are visible only if a line is thicker than two pixels.
        joint = "curve" if thickness > 2 else None
        pen.line(line.ravel().tolist(), fill=round(255 * strength), width=thickness, joint=joint)
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(blur)), np.float32) / np.float32(255)


def fill_polygon(grid: Grid, points: NDArray[np.float64], blur: float) -> Array:
    """A polygon [H, W] in [0, 1] with edges blurred by `blur` pixels; points [n, 2] in patient units."""
    canvas = Image.new("L", (grid.shape[1], grid.shape[0]))
    ImageDraw.Draw(canvas).polygon(grid.to_pixels(points).ravel().tolist(), fill=255)
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(blur)), np.float32) / np.float32(255)


def curve(points: Sequence[tuple[float, float]], steps: int = 8) -> NDArray[np.float64]:
    """A Catmull-Rom curve [n, 2] through `points`."""
    p = np.array([points[0], *points, points[-1]], dtype=np.float64)
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:]):
        pieces.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    return np.concatenate([*pieces, p[-1:]])


def tree(
    rng: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    length: float,
    width: float,
    generations: int,
) -> list[Line]:
    """A branching vessel or bronchus: lines that get thinner and fainter.

    angle: heading in radians, 0 along x, pi / 2 down.
    """
    lines: list[Line] = []
    ends, headings, reaches = np.array([start]), np.array([angle]), np.array([length])
    for generation in range(generations):
        turned = headings[:, None] + np.cumsum(rng.normal(0.0, 0.10, (len(ends), 4)), axis=1)
        steps = np.stack([np.cos(turned), np.sin(turned)], axis=2) * (reaches[:, None, None] / 4)
        paths = np.concatenate([ends[:, None], ends[:, None] + np.cumsum(steps, axis=1)], axis=1)
        lines += [(path, width * 0.68**generation, 0.8**generation) for path in paths]
        forks = rng.uniform(0.2, 0.6, (len(ends), 2)) * (1, -1)
        ends = np.repeat(paths[:, -1], 2, axis=0)
        headings = (turned[:, -1:] + forks).ravel()
        reaches = np.repeat(reaches, 2) * rng.uniform(0.55, 0.85, len(ends))
    return lines
