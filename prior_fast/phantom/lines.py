"""Lines and filled shapes with soft edges, curves, and branching trees of lines."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from prior_fast.phantom.textures import Array, Box, Grid, clip_box

Points = NDArray[np.float64]
Line = tuple[Points, float, float]
"""Points [n, 2] in patient units, width in patient units, strength in [0, 1]."""
Patch = tuple[Box, Array]
"""A part of an image and its values, float32. The image is 0 elsewhere."""
Numbers = list[tuple[NDArray[np.float64], NDArray[np.float64]]]
"""The random numbers of a tree: for each generation of n lines normal ones [4n] and uniform ones [4n]."""


def draw_lines(grid: Grid, lines: Iterable[Line], blur: float = 0.7) -> Patch:
    """Lines in [0, 1], edges blurred by `blur` pixels.

    Each piece of a line is a rectangle. The gaps between them are smaller than a pixel, because lines are thin or bend
    little from point to point.
    """
    lines = list(lines)
    pixels = grid.to_pixels(np.concatenate([points for points, _, _ in lines]))
    thickness = [max(1, round(width * grid.scale)) for _, width, _ in lines]

    def draw(pen: ImageDraw.ImageDraw, flat: list[float]) -> None:
        begin = 0
        for (points, _, strength), width in zip(lines, thickness):
            end = begin + 2 * len(points)
            pen.line(flat[begin:end], round(255 * strength), width)
            begin = end

    return _blurred(grid, pixels, max(thickness) / 2 + 1, blur, draw)


def fill_polygon(grid: Grid, points: Points, blur: float) -> Patch:
    """A polygon in [0, 1] with edges blurred by `blur` pixels; points [n, 2] in patient units."""
    return _blurred(grid, grid.to_pixels(points), 1.0, blur, lambda pen, flat: pen.polygon(flat, fill=255))


def _blurred(
    grid: Grid, pixels: Points, border: float, sigma: float, draw: Callable[[ImageDraw.ImageDraw, list[float]], Any]
) -> Patch:
    """Draw at `pixels` (column, row) [n, 2] and blur, in the smallest box that has the pixels, `border` and the blur.

    draw: is given the pen and the pixels in one list, relative to the pen's canvas.
    """
    reach = int(3 * sigma + 0.5)
    (left, right), (top, bottom) = ((line.min() - border - reach, line.max() + border + reach) for line in pixels.T)
    box = clip_box(top, bottom, left, right, grid.shape)
    height, width = box[0].stop - box[0].start, box[1].stop - box[1].start
    if not height or not width:
        return box, np.zeros((height, width), np.float32)
    # The canvas is larger than the box by the blur's reach, so that lines which leave the image do not end there.
    canvas = Image.new("L", (width + 2 * reach, height + 2 * reach))
    corner = (reach - box[1].start, reach - box[0].start)
    draw(ImageDraw.Draw(canvas), (pixels + corner).ravel().tolist())
    weights = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    weights /= 2 * weights.sum() - weights[0]
    values = np.asarray(canvas, np.float32).ravel()
    values = _convolve(values, weights / 255, canvas.width)[: height * canvas.width]
    values = _convolve(values, weights, 1)
    return box, values.reshape(-1, canvas.width)[:height, :width]


def _convolve(values: Array, weights: NDArray[np.float64], step: int) -> Array:
    """Sums [n] with symmetric weights of an image's pixels [n], row by row; weights[0] belongs to the middle.

    Each sum begins with its first pixel and takes every `step`-th: 1 along rows, the image's width along columns. The
    last sums, which would need pixels beyond the image's end, are unspecified. The image is one long row here, because
    numpy is slower if there are many short ones.
    """
    reach = len(weights) - 1
    total, (middle, *others) = np.empty_like(values), weights.astype(np.float32)
    count = len(values) - 2 * reach * step
    sums = np.multiply(values[reach * step :][:count], middle, out=total[:count])
    pair = np.empty_like(sums)
    for distance, weight in enumerate(others, 1):
        before, after = (reach - distance) * step, (reach + distance) * step
        np.add(values[before:][:count], values[after:][:count], out=pair)
        pair *= weight
        sums += pair
    return total


def curve(points: Sequence[tuple[float, float]], steps: int = 8) -> Points:
    """A Catmull-Rom curve [n, 2] through `points`."""
    p = np.array([points[0], *points, points[-1]], dtype=np.float64)
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[:, None]
    a, b, c, d = p[:-3, None], p[1:-2, None], p[2:-1, None], p[3:, None]
    pieces = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return np.concatenate([pieces.reshape(-1, 2), p[-1:]])


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
    return grow_trees([start], [angle], [length], [draw_numbers(rng, generations)], width)


def draw_numbers(rng: np.random.Generator, generations: int) -> Numbers:
    """The random numbers of one tree for `grow_trees`."""
    return [(rng.standard_normal(4 << n), rng.random(4 << n)) for n in range(generations)]


def grow_trees(
    starts: Sequence[tuple[float, float]],
    angles: Sequence[float],
    lengths: Sequence[float],
    numbers: Sequence[Numbers],
    width: float,
) -> list[Line]:
    """The lines of several trees of one width, tree after tree, each from its own random numbers."""
    ends, headings, reaches = np.array(starts)[:, None], np.array(angles)[:, None], np.array(lengths)[:, None]
    generations = []
    for drawn in zip(*numbers):
        normal, uniform = (np.array(part) for part in zip(*drawn))
        count = normal.shape[1] // 4
        bends, forks = 0.10 * normal.reshape(-1, count, 4), 0.2 + 0.4 * uniform[:, : 2 * count].reshape(-1, count, 2)
        shares = 0.55 + 0.3 * uniform[:, 2 * count :]
        turned = headings[:, :, None] + np.cumsum(bends, axis=2)
        steps = np.stack([np.cos(turned), np.sin(turned)], axis=3) * (reaches[:, :, None, None] / 4)
        paths = np.concatenate([ends[:, :, None], ends[:, :, None] + np.cumsum(steps, axis=2)], axis=2)
        # Two branches of one fork are drawn as one line, from tip to tip.
        joined = np.concatenate([paths[:, ::2, ::-1], paths[:, 1::2, 1:]], axis=2) if paths.shape[1] > 1 else paths
        generations.append(joined)
        ends = np.repeat(paths[:, :, -1], 2, axis=1)
        headings = (turned[:, :, -1:] + forks * (1, -1)).reshape(len(ends), -1)
        reaches = np.repeat(reaches, 2, axis=1) * shares
    looks = [(width * 0.68**generation, 0.8**generation) for generation in range(len(generations))]
    return [
        (path, *look)
        for paths_of_tree in zip(*generations)
        for paths, look in zip(paths_of_tree, looks)
        for path in paths
    ]
