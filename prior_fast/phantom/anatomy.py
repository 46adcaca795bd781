"""A made-up chest: the geometry of a patient, and the normal anatomy drawn from it as layers of X-ray attenuation.

Lengths are in patient units (see `Grid`): the thorax is about 1 wide on each side of the midline at its base.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from prior_fast.phantom.textures import Array, Grid, Line, curve, draw_lines, noise_field, smoothstep, tree

SIDES = {"right": -1.0, "left": 1.0}
"""Direction of each of the patient's sides along x: the patient's right is at the image's left."""

AIR = 0.62
"""How much less a fully aerated lung attenuates than soft tissue, whose attenuation is about 1."""


@dataclass(frozen=True)
class Patient:
    """What stays the same in all images of one patient; lengths in patient units."""

    width: float
    apex: float
    base: float
    dome: float
    dome_difference: float
    mediastinum: float
    knob: float
    cardiothoracic_ratio: float
    heart_tilt: float
    rib_spacing: float
    rib_phase: float
    rib_slope: float
    clavicle_rise: float
    fat: float
    vessels: float
    lines: tuple[Line, ...] = field(repr=False)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Patient":
        width, apex = rng.uniform(0.90, 1.06), rng.uniform(-1.08, -0.95)
        return cls(
            width=width,
            apex=apex,
            base=rng.uniform(0.78, 0.98),
            dome=rng.uniform(0.20, 0.32),
            dome_difference=rng.uniform(0.02, 0.08),
            mediastinum=rng.uniform(0.17, 0.23),
            knob=rng.uniform(0.08, 0.14),
            cardiothoracic_ratio=rng.uniform(0.39, 0.47),
            heart_tilt=rng.uniform(0.40, 0.62),
            rib_spacing=rng.uniform(0.175, 0.215),
            rib_phase=rng.uniform(0, 1),
            rib_slope=rng.uniform(0.12, 0.34),
            clavicle_rise=rng.uniform(0.02, 0.22),
            fat=rng.uniform(0.12, 0.42),
            vessels=rng.uniform(0.11, 0.18),
            lines=tuple(_lung_vessels(rng)),
        )

    def with_heart(self, cardiothoracic_ratio: float) -> "Patient":
        return replace(self, cardiothoracic_ratio=cardiothoracic_ratio)


@dataclass
class Lung:
    """The geometry of one lung on the grid, all [H, W] float32.

    Attributes:
        lateral: distance from the midline towards this side.
        to_wall: distance to the chest wall, positive inside.
        above_diaphragm: distance above the diaphragm, positive in the lung.
        outline: the lung in [0, 1], including the part behind the heart.
    """

    lateral: Array
    wall: Array
    above_diaphragm: Array
    outline: Array

    @property
    def to_wall(self) -> Array:
        return self.wall - self.lateral


@dataclass
class Chest:
    """The layers of one frontal image, all [H, W] float32. Findings change them; `attenuation` adds them up.

    Attributes:
        tissue: soft tissue of the whole body.
        air: how well the lungs are aerated, 0 outside, 1 in normal lung.
        markings: vessels and interstitial lines in the lungs.
        dense: structures before and behind the lungs: heart, bones, and devices.
        heart: the heart's silhouette in [0, 1].
    """

    patient: Patient
    grid: Grid
    lungs: dict[str, Lung]
    tissue: Array
    air: Array
    markings: Array
    dense: Array
    heart: Array

    def attenuation(self) -> Array:
        return self.tissue - np.float32(AIR) * self.air + self.markings + self.dense

    def visible_lung(self, side: str) -> Array:
        """One lung where neither heart nor mediastinum hides it, [H, W] in [0, 1]."""
        return self.lungs[side].outline * (self.air > 0.3)


def draw_chest(patient: Patient, grid: Grid, elevation: dict[str, float], rng: np.random.Generator) -> Chest:
    """Draw the normal anatomy.

    elevation: how far each hemidiaphragm is above its normal position, by side.
    """
    lungs = {side: _lung(patient, grid, side, elevation.get(side, 0.0)) for side in SIDES}
    heart, mediastinum = _heart(patient, grid), _mediastinum(patient, grid)
    centre = np.maximum(heart, mediastinum)
    lung = np.maximum(lungs["right"].outline, lungs["left"].outline)
    visible = lung * (1 - centre)
    air = visible + np.float32(0.18) * lung * centre
    body, tissue = _soft_tissue(patient, grid, lungs)
    airway = _airway(patient, grid)
    vessels = draw_lines(grid, patient.lines) * np.float32(patient.vessels)
    grain = noise_field(rng, grid.shape, 5.0) * np.float32(0.016)
    markings = (vessels + grain) * visible
    bones = _ribs(patient, grid, lungs) + _spine(patient, grid) + _clavicles(patient, grid)
    fade = 1 - np.float32(0.85) * smoothstep(-above_diaphragm(grid, lungs) / np.float32(0.12))
    centre_tissue = np.float32(0.10) * heart * fade + np.float32(0.08) * mediastinum * body
    dense = centre_tissue - np.float32(0.16) * airway + bones * body
    return Chest(patient, grid, lungs, tissue, air, markings, dense, heart)


def above_diaphragm(grid: Grid, lungs: dict[str, Lung]) -> Array:
    """Each pixel's distance above the diaphragm of its own side, [H, W]."""
    return np.where(grid.x < 0, lungs["right"].above_diaphragm, lungs["left"].above_diaphragm)


def heart_extent(patient: Patient) -> tuple[float, float]:
    """The heart's borders (right, left) along x; their distance over 2 * width is the cardiothoracic ratio."""
    across = 2 * patient.width * patient.cardiothoracic_ratio
    return -0.35 * across, 0.65 * across


def _lung(patient: Patient, grid: Grid, side: str, elevation: float) -> Lung:
    lateral = grid.x * np.float32(SIDES[side])
    rise = np.clip((0.42 - grid.y) / (0.42 - patient.apex), 0.0, 1.0)
    wall = np.float32(patient.width) * (1 - rise**3.0) ** np.float32(0.56) * (1 - 0.04 * np.clip(grid.y - 0.42, 0, 1))
    normal = patient.base - (patient.dome_difference if side == "right" else 0.0)
    across = (lateral - 0.47 * patient.width) / (0.33 * patient.width)
    dome = patient.dome * np.exp(-0.5 * across * across) + elevation - 0.02
    above = np.float32(normal) - dome.astype(np.float32) - grid.y
    medial = 0.10 + 0.20 * np.exp(-np.clip(grid.y - patient.apex, 0, None) / 0.10)
    edges = np.minimum(np.minimum(wall - lateral, above), lateral - medial).astype(np.float32)
    return Lung(lateral, wall.astype(np.float32), above, smoothstep(edges / 0.03))


def _heart(patient: Patient, grid: Grid) -> Array:
    """An ellipse whose long axis points down and to the patient's left, scaled to the cardiothoracic ratio."""
    right, left = heart_extent(patient)
    half, tilt = (left - right) / 2, patient.heart_tilt
    cos, sin = math.cos(tilt), math.sin(tilt)
    short = 0.36 + 0.55 * max(0.0, patient.cardiothoracic_ratio - 0.45)
    long = math.sqrt(max(half**2 - (short * sin) ** 2, 0.05)) / cos
    dx, dy = grid.x - np.float32((left + right) / 2), grid.y - np.float32(patient.base - 0.46)
    along, across = (dx * cos + dy * sin) / long, (dy * cos - dx * sin) / short
    radius = np.sqrt(along * along + across * across)
    return smoothstep((1 - radius) * short / 0.04 + 0.5)


def _mediastinum(patient: Patient, grid: Grid) -> Array:
    """Great vessels, aortic knob and hila."""
    half = patient.mediastinum + 0.05 * np.exp(-(((grid.y - 0.05) / 0.25) ** 2))
    band = smoothstep((half - np.abs(grid.x - 0.02)) / 0.04 + 0.5)
    knob = np.hypot(grid.x - (patient.mediastinum - 0.02), (grid.y + 0.42) * 0.8)
    knob = smoothstep((patient.knob - knob) / 0.04 + 0.5)
    hila = np.zeros(grid.shape, np.float32)
    for direction, level in ((-1.0, -0.04), (1.0, -0.10)):
        dx, dy = (grid.x * direction - 0.27) / 0.085, (grid.y - level) / 0.16
        hila += np.exp(-(dx * dx + dy * dy)).astype(np.float32)
    return np.maximum(np.maximum(band, knob), np.float32(0.5) * hila)


def _airway(patient: Patient, grid: Grid) -> Array:
    """Trachea and main bronchi, full of air."""
    trachea = [(0.0, -1.6), (0.0, -0.8), (-0.01, -0.32)]
    lines: list[Line] = [
        (curve(trachea), 0.10, 1.0),
        (curve([(-0.01, -0.34), (-0.12, -0.20), (-0.24, -0.08)]), 0.06, 0.7),
        (curve([(-0.01, -0.34), (0.13, -0.22), (0.27, -0.14)]), 0.05, 0.6),
    ]
    return draw_lines(grid, lines, blur=2.0)


def _soft_tissue(patient: Patient, grid: Grid, lungs: dict[str, Lung]) -> tuple[Array, Array]:
    """The body's outline [H, W] in [0, 1] and its thickness."""
    lateral = np.abs(grid.x)
    neck = 1.2 * np.clip((0.36 - lateral) / 0.10, 0, 1)
    shoulder = -1.46 + 0.30 * np.clip((lateral - 0.30) / 0.9, 0, 1) ** 1.3 - neck
    flank = patient.width + patient.fat + 0.55 * np.clip((-0.30 - grid.y) / 0.6, 0, 1) ** 1.6
    body = smoothstep(np.minimum(grid.y - shoulder, flank - lateral) / 0.05)
    fold = 0.06 * np.exp(-(((lateral - patient.width * 0.97) / 0.06) ** 2))
    abdomen = 0.24 * smoothstep(-above_diaphragm(grid, lungs) / 0.25)
    thickness = 0.80 + 0.20 * np.clip(1.2 - lateral, 0, 1) + fold + abdomen
    return body, (body * thickness).astype(np.float32)


def _ribs(patient: Patient, grid: Grid, lungs: dict[str, Lung]) -> Array:
    """Posterior ribs slope gently down towards the wall, anterior ribs steeply up; both repeat at one spacing."""
    lateral = np.abs(grid.x)
    wall = np.where(grid.x < 0, lungs["right"].wall, lungs["left"].wall)
    inside = smoothstep((wall - lateral + 0.05) / np.float32(0.04)) * (lateral > 0.07)
    reach = np.clip(lateral / np.maximum(wall, 0.2), 0, 1.05)
    spacing = patient.rib_spacing * (1 + 0.10 * grid.y)
    posterior = grid.y + 0.08 * np.sin(3.1 * reach) - patient.rib_slope * reach**2.2
    anterior = grid.y + 0.55 * (1 - reach) - 0.30 * reach**3
    bands = np.zeros(grid.shape, np.float32)
    for level, strength, half in ((posterior, 0.12, 0.25), (anterior, 0.075, 0.22)):
        phase = level / spacing + patient.rib_phase
        offset = np.abs(phase - np.round(phase)).astype(np.float32)
        tube = smoothstep((half - offset) / np.float32(0.07)) * (0.65 + 0.35 * (offset / half) ** 2)
        fade = smoothstep((lateral - 0.42) / np.float32(0.2)) if strength < 0.1 else 1.0
        bands += (strength * tube * fade).astype(np.float32)
    above = above_diaphragm(grid, lungs)
    rim = 0.10 * np.exp(-(((lateral - wall - 0.02) / 0.03) ** 2)) * (grid.y > patient.apex)
    return (bands * inside * (0.45 + 0.55 * smoothstep((above + 0.1) / 0.1)) + rim).astype(np.float32)


def _spine(patient: Patient, grid: Grid) -> Array:
    column = smoothstep((0.115 - np.abs(grid.x)) / np.float32(0.03))
    discs = 0.03 * np.cos(2 * np.pi * (grid.y / patient.rib_spacing + patient.rib_phase))
    return (column * (0.13 + discs)).astype(np.float32)


def _clavicles(patient: Patient, grid: Grid) -> Array:
    lines: list[Line] = []
    for side in SIDES.values():
        top = patient.apex + 0.16
        rise = patient.clavicle_rise
        points = [(0.11, top + 0.10), (0.34, top + 0.05), (0.62, top - 0.5 * rise), (0.90, top - rise - 0.04)]
        points += [(1.15, top - rise)]
        lines.append((curve([(side * x, y) for x, y in points]), 0.066, 1.0))
        blade = [(0.80, top + 0.02), (0.86, top + 0.34), (1.0, top + 0.62)]
        lines.append((curve([(side * x * patient.width, y) for x, y in blade]), 0.045, 0.3))
    return draw_lines(grid, lines, blur=1.6) * np.float32(0.15)


def _lung_vessels(rng: np.random.Generator) -> list[Line]:
    """Vessels of both lungs, branching from the hila."""
    lines: list[Line] = []
    for side, level in ((-1.0, -0.02), (1.0, -0.08)):
        for heading in np.linspace(-1.4, 1.4, 9):
            angle = heading + rng.normal(0, 0.08)
            angle = angle if side > 0 else np.pi - angle
            start = (side * rng.uniform(0.18, 0.28), level + 0.14 * float(heading) + rng.normal(0, 0.03))
            reach = rng.uniform(0.22, 0.34) * (1.25 if abs(heading) > 0.9 else 1.0)
            lines += tree(rng, start, angle, reach, 0.026, 4)
    return lines
