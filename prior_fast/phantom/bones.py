"""The bones of a frontal image: ribs, spine, clavicles and shoulder blades. Each is a patch of attenuation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prior_fast.phantom.lines import Line, Patch, curve, draw_lines
from prior_fast.phantom.patient import SIDES, Patient
from prior_fast.phantom.textures import Array, Grid, smoothstep


def draw_ribs(patient: Patient, grid: Grid, walls: Array, above: Array) -> Patch:
    """Posterior ribs slope gently down towards the wall, anterior ribs steeply up; both repeat at one spacing."""
    box = grid.box((-patient.width - 0.12, patient.width + 0.12), (patient.apex - 0.02, 9.0))
    part, wall = grid.crop(box), walls[box]
    lateral = np.abs(part.x)
    reach = part.of_y(lambda y: 1000 / np.maximum(patient.wall(y), 0.2))
    reach *= lateral
    np.minimum(reach, np.float32(1050), out=reach)
    # How far a rib is from its level at the midline: polynomials would need more passes than a table.
    entry, table = reach.astype(np.intp), np.arange(1051, dtype=np.float32) / 1000
    posterior = _look_up(0.08 * np.sin(3.1 * table) - patient.rib_slope * table**2.2, entry)
    anterior = _look_up(0.55 * (1 - table) - 0.30 * table**3, entry)
    # The number of ribs between two levels is their distance over the spacing.
    density = part.of_y(lambda y: 1 / (patient.rib_spacing * (1 + 0.10 * y)))
    number = part.of_y(lambda y: y / (patient.rib_spacing * (1 + 0.10 * y)) + patient.rib_phase)
    bands, front = (
        _tubes(level, density, number, strength, half)
        for level, strength, half in ((posterior, 0.12, 0.25), (anterior, 0.075, 0.22))
    )
    bands *= part.of_x(lambda x: np.abs(x) > 0.07)
    front *= part.of_x(lambda x: smoothstep((np.abs(x) - 0.42) / 0.2))
    bands += front
    beyond = np.subtract(lateral, wall, out=lateral)
    inside = np.multiply(beyond, np.float32(-1 / 0.04), out=reach)
    inside += np.float32(0.05 / 0.04)
    bands *= smoothstep(inside)
    shade = np.multiply(above[box], np.float32(1 / 0.1), out=reach)
    shade += np.float32(1)
    shade = smoothstep(shade)
    shade *= np.float32(0.55)
    shade += np.float32(0.45)
    bands *= shade
    # The rim of the ribs that are seen along their length.
    beyond -= np.float32(0.02)
    beyond *= beyond
    beyond *= np.float32(-1 / 0.03**2)
    rim = np.exp(beyond, out=beyond)
    rim *= np.float32(0.10)
    bands += rim
    return box, bands


def _look_up(table: NDArray[Any], entries: NDArray[np.intp]) -> Array:
    """The values of `table` [n] at `entries` [h, w], which are all in range."""
    values: Array = table.astype(np.float32, copy=False)
    # Clipping is faster than a check of the entries.
    return values.take(entries, mode="clip")


def _tubes(level: Array, density: Array, number: Array, strength: float, half: float) -> Array:
    """Ribs of one kind: bands of half width `half`, in parts of the spacing, that are denser at their edges.

    Args:
        level: how far the ribs are above their level at the midline, [h, w]; it is overwritten.
        density: ribs per unit.
        number: the number of ribs above each pixel, if they were level.
    """
    # A rib's profile repeats, so it is a table over one period.
    offset = np.arange(512, dtype=np.float32) / 512
    offset = np.minimum(offset, 1 - offset)
    profile = strength * smoothstep((half - offset) / 0.07) * (0.65 + 0.35 * (offset / half) ** 2)
    level *= density
    level += number
    level *= np.float32(512)
    entry = level.astype(np.intp)
    entry &= 511
    return _look_up(profile, entry)


def draw_spine(patient: Patient, grid: Grid) -> Patch:
    box = grid.box((-0.12, 0.12), (-9.0, 9.0))
    part = grid.crop(box)
    column = part.of_x(lambda x: smoothstep((0.115 - np.abs(x)) / 0.03))
    column *= part.of_y(lambda y: 0.13 + 0.03 * np.cos(2 * np.pi * (y / patient.rib_spacing + patient.rib_phase)))
    return box, column


def draw_clavicles(patient: Patient, grid: Grid) -> Patch:
    lines: list[Line] = []
    for side in SIDES.values():
        top = patient.apex + 0.16
        rise = patient.clavicle_rise
        points = [(0.11, top + 0.10), (0.34, top + 0.05), (0.62, top - 0.5 * rise), (0.90, top - rise - 0.04)]
        points += [(1.15, top - rise)]
        lines.append((curve([(side * x, y) for x, y in points]), 0.066, 1.0))
        blade = [(0.80, top + 0.02), (0.86, top + 0.34), (1.0, top + 0.62)]
        lines.append((curve([(side * x * patient.width, y) for x, y in blade]), 0.045, 0.3))
    box, bones = draw_lines(grid, lines, blur=1.6)
    bones *= np.float32(0.15)
    return box, bones
