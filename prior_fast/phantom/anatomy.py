"""A made-up chest: the normal anatomy of a patient, drawn as layers of X-ray attenuation."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prior_fast.phantom.bones import draw_clavicles, draw_ribs, draw_spine
from prior_fast.phantom.lines import Line, Patch, curve, draw_lines
from prior_fast.phantom.patient import SIDES, Patient
from prior_fast.phantom.textures import Array, Box, Grid, Noise, smoothstep

AIR = 0.62
"""How much less a fully aerated lung attenuates than soft tissue, whose attenuation is about 1."""

# Trachea and main bronchi, full of air.
_AIRWAY: list[Line] = [
    (curve([(0.0, -1.6), (0.0, -0.8), (-0.01, -0.32)]), 0.10, 1.0),
    (curve([(-0.01, -0.34), (-0.12, -0.20), (-0.24, -0.08)]), 0.06, 0.7),
    (curve([(-0.01, -0.34), (0.13, -0.22), (0.27, -0.14)]), 0.05, 0.6),
]


@dataclass
class Lung:
    """The geometry of one lung in a box around it, all [h, w] float32.

    Attributes:
        box: the part of the image with the whole lung, and some pixels more.
        grid: the grid of the box.
        lateral: distance from the midline towards this side.
        wall: distance from the midline to the chest wall.
        to_wall: distance to the chest wall, positive inside.
        above_diaphragm: distance above the diaphragm, positive in the lung.
        outline: the lung in [0, 1], including the part behind the heart.
    """

    box: Box
    grid: Grid
    lateral: Array
    wall: Array
    to_wall: Array
    above_diaphragm: Array
    outline: Array


@dataclass
class Chest:
    """The layers of one frontal image, all [H, W] float32. Findings change them; `attenuation` adds them up.

    Attributes:
        above_diaphragm: each pixel's distance above the diaphragm of its own side.
        tissue: soft tissue of the whole body.
        air: how well the lungs are aerated, 0 outside, 1 in normal lung.
        markings: vessels and interstitial lines in the lungs, 0 outside.
        dense: structures before and behind the lungs: heart, bones, and devices.
        heart: the heart's silhouette in [0, 1].
    """

    patient: Patient
    grid: Grid
    lungs: dict[str, Lung]
    above_diaphragm: Array
    tissue: Array
    air: Array
    markings: Array
    dense: Array
    heart: Array

    def attenuation(self) -> Array:
        total = self.air * np.float32(-AIR)
        total += self.tissue
        total += self.markings
        total += self.dense
        return total

    def visible_lung(self, side: str) -> Array:
        """One lung where neither heart nor mediastinum hides it, in its box, [h, w] in [0, 1]."""
        lung = self.lungs[side]
        return lung.outline * (self.air[lung.box] > 0.3)


def draw_chest(patient: Patient, grid: Grid, elevation: dict[str, float], rng: np.random.Generator) -> Chest:
    """Draw the normal anatomy.

    elevation: how far each hemidiaphragm is above its normal position, by side.
    """
    wall, above = grid.of_y(patient.wall), _above_diaphragm(patient, grid, elevation)
    lungs = {side: _lung(patient, grid, side, wall, above) for side in SIDES}
    heart_box, heart_patch = _heart(patient, grid)
    heart = np.zeros(grid.shape, np.float32)
    heart[heart_box] = heart_patch
    mediastinum = _mediastinum(patient, grid)
    air, markings = _lung_layers(patient, grid, lungs, np.maximum(heart, mediastinum), rng)
    body, tissue = _soft_tissue(patient, grid, above)
    # What is drawn before the product with `body` ends at the body's outline.
    dense = mediastinum * np.float32(0.08)
    for box, bones in (draw_ribs(patient, grid, wall, above), draw_spine(patient, grid), draw_clavicles(patient, grid)):
        dense[box] += bones
    dense *= body
    fade = 1 - np.float32(0.85) * smoothstep(above[heart_box] * np.float32(-1 / 0.12))
    dense[heart_box] += np.float32(0.10) * heart_patch * fade
    box, airway = draw_lines(grid, _AIRWAY, blur=2.0)
    dense[box] -= np.float32(0.16) * airway
    return Chest(patient, grid, lungs, above, tissue, air, markings, dense, heart)


def _above_diaphragm(patient: Patient, grid: Grid, elevation: dict[str, float]) -> Array:
    """Each pixel's distance above the diaphragm of its own side, [H, W]."""

    def floor(x: Array) -> NDArray[Any]:
        across = (np.abs(x) - 0.47 * patient.width) / (0.33 * patient.width)
        right, left = (elevation.get(side, 0.0) for side in ("right", "left"))
        raised = np.where(x < 0, np.float32(right + patient.dome_difference), np.float32(left))
        return patient.base - patient.dome * np.exp(-0.5 * across * across) - raised + 0.02

    above = grid.of_x(floor)
    above -= grid.y
    return above


def _lung(patient: Patient, grid: Grid, side: str, walls: Array, above: Array) -> Lung:
    across = (SIDES[side] * 0.09, SIDES[side] * (patient.width + 0.03))
    # The box reaches a little further down than the lung, because a raised diaphragm is part of a collapse.
    box = grid.box((min(across), max(across)), (patient.apex - 0.03, patient.base + 0.12))
    part, wall = grid.crop(box), walls[box]
    lateral = part.x * np.float32(SIDES[side])
    to_wall = wall - lateral
    edges = part.of_y(lambda y: -0.10 - 0.20 * np.exp(-np.clip(y - patient.apex, 0, None) / 0.10))
    edges += lateral
    np.minimum(edges, to_wall, out=edges)
    np.minimum(edges, above[box], out=edges)
    edges *= np.float32(1 / 0.03)
    return Lung(box, part, lateral, wall, to_wall, above[box], smoothstep(edges))


def _lung_layers(
    patient: Patient, grid: Grid, lungs: dict[str, Lung], centre: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """The layers `air` and `markings` of a normal chest; `centre` [H, W] hides the lungs."""
    air, markings = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)
    # The boxes overlap a little, but no lung reaches into the other's half.
    for lung in lungs.values():
        air[lung.box] += lung.outline
    (rows, columns), (more_rows, more_columns) = (lungs[side].box for side in SIDES)
    both = (
        slice(min(rows.start, more_rows.start), max(rows.stop, more_rows.stop)),
        slice(min(columns.start, more_columns.start), max(columns.stop, more_columns.stop)),
    )
    inside, hidden = air[both], air[both] * centre[both]
    inside -= hidden
    texture = Noise.draw(rng, grid.shape, 5.0)[both] * np.float32(0.016)
    box, vessels = draw_lines(grid.crop(both), patient.lines)
    texture[box] += vessels * np.float32(patient.vessels)
    np.multiply(texture, inside, out=markings[both])
    hidden *= np.float32(0.18)
    inside += hidden
    return air, markings


def _heart(patient: Patient, grid: Grid) -> Patch:
    """An ellipse whose long axis points down and to the patient's left, scaled to the cardiothoracic ratio."""
    right, left = patient.heart_extent
    half, tilt = (left - right) / 2, patient.heart_tilt
    cos, sin = math.cos(tilt), math.sin(tilt)
    short = 0.36 + 0.55 * max(0.0, patient.cardiothoracic_ratio - 0.45)
    long = math.sqrt(max(half**2 - (short * sin) ** 2, 0.05)) / cos
    x, y = (left + right) / 2, patient.base - 0.46
    # The soft edge ends 0.02 outside of the ellipse on its short axis, so 6 % are enough.
    wide, high = 1.06 * math.hypot(long * cos, short * sin), 1.06 * math.hypot(long * sin, short * cos)
    box = grid.box((x - wide, x + wide), (y - high, y + high))
    dx, dy = grid.x[box] - np.float32(x), grid.y[box] - np.float32(y)
    along, across = dx * (cos / long) + dy * (sin / long), dy * (cos / short) - dx * (sin / short)
    along *= along
    across *= across
    along += across
    radius = np.sqrt(along, out=along)
    radius *= np.float32(-short / 0.04)
    radius += np.float32(short / 0.04 + 0.5)
    return box, smoothstep(radius)


def _mediastinum(patient: Patient, grid: Grid) -> Array:
    """Great vessels, aortic knob and hila."""
    layer = np.zeros(grid.shape, np.float32)
    for direction, level in ((-1.0, -0.04), (1.0, -0.10)):
        # A hilum fades to 1e-4 at three times its size.
        box = grid.box((direction * 0.27 - 0.27, direction * 0.27 + 0.27), (level - 0.48, level + 0.48))
        part = grid.crop(box)
        hilum = part.of_x(_bell(direction * 0.27, 0.085))
        hilum *= part.of_y(_bell(level, 0.16))
        hilum *= np.float32(0.5)
        layer[box] += hilum
    box = grid.box((-patient.mediastinum - 0.05, patient.mediastinum + 0.09), (-9.0, 9.0))
    part = grid.crop(box)
    band = part.of_y(lambda y: patient.mediastinum + 0.05 * np.exp(-(((y - 0.05) / 0.25) ** 2)))
    band -= np.abs(part.x - np.float32(0.02))
    band *= np.float32(1 / 0.04)
    band += np.float32(0.5)
    np.maximum(layer[box], smoothstep(band), out=layer[box])
    x, y, reach = patient.mediastinum - 0.02, -0.42, patient.knob + 0.02
    box = grid.box((x - reach, x + reach), (y - reach / 0.8, y + reach / 0.8))
    knob = np.hypot(grid.x[box] - x, (grid.y[box] - y) * 0.8)
    np.maximum(layer[box], smoothstep((patient.knob - knob) / 0.04 + 0.5), out=layer[box])
    return layer


def _bell(middle: float, width: float) -> Callable[[Array], NDArray[Any]]:
    return lambda values: np.exp(-(((values - middle) / width) ** 2))


def _soft_tissue(patient: Patient, grid: Grid, above: Array) -> tuple[Array, Array]:
    """The body's outline [H, W] in [0, 1] and its thickness."""

    def shoulder(x: Array) -> NDArray[Any]:
        lateral = np.abs(x)
        neck = 1.2 * np.clip((0.36 - lateral) / 0.10, 0, 1)
        return -1.46 + 0.30 * np.clip((lateral - 0.30) / 0.9, 0, 1) ** 1.3 - neck

    def thickness(x: Array) -> NDArray[Any]:
        lateral = np.abs(x)
        fold = 0.06 * np.exp(-(((lateral - patient.width * 0.97) / 0.06) ** 2))
        return 0.80 + 0.20 * np.clip(1.2 - lateral, 0, 1) + fold

    edge = grid.of_y(lambda y: patient.width + patient.fat + 0.55 * np.clip((-0.30 - y) / 0.6, 0, 1) ** 1.6)
    edge -= np.abs(grid.x)
    np.minimum(edge, grid.y - grid.of_x(shoulder), out=edge)
    edge *= np.float32(1 / 0.05)
    body = smoothstep(edge)
    tissue = grid.of_x(thickness)
    # The diaphragm's dome, raised by a collapse, is less than half a unit high.
    box = grid.box((-9.0, 9.0), (patient.base - 0.5, 9.0))
    abdomen = smoothstep(above[box] * np.float32(-1 / 0.25))
    abdomen *= np.float32(0.24)
    tissue[box] += abdomen
    tissue *= body
    return body, tissue
