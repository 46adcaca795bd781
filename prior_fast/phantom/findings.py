"""Drawing the findings into the layers of a chest. Each function returns the mask of the pixels that it drew.

The appearance follows the Fleischner Society's glossary of terms for thoracic imaging (Radiology 2008;246:697).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from prior_fast.phantom.anatomy import SIDES, Chest, Lung, Patient, above_diaphragm
from prior_fast.phantom.contents import Finding
from prior_fast.phantom.textures import Array, Line, curve, draw_lines, noise_field, smoothstep, tree

Mask = NDArray[np.bool_]
_LEVEL = {"mild": 0, "moderate": 1, "severe": 2}
_SMALLEST_PART = 0.02
_ZONE_CENTRE = {"upper": -0.55, "mid": -0.08, "lower": 0.36}


def cardiothoracic_ratio(finding: Finding, rng: np.random.Generator) -> float:
    """The drawn cardiothoracic ratio of a Cardiomegaly of this severity; always above 0.5."""
    low, high = ((0.55, 0.58), (0.60, 0.64), (0.66, 0.72))[_LEVEL[finding.severity]]
    return float(rng.uniform(0.53, 0.55) if finding.hedged else rng.uniform(low, high))


def elevation(finding: Finding) -> dict[str, float]:
    """How far the collapse of a lower lobe raises the hemidiaphragm of its side."""
    if finding.form != "lobar" or finding.zone != "lower":
        return {}
    return dict.fromkeys(finding.sides, (0.02, 0.04, 0.06)[_LEVEL[finding.severity]])


def draw_finding(chest: Chest, finding: Finding, rng: np.random.Generator) -> Mask:
    """Draw `finding` into the layers of `chest`; the mask [H, W] is True where it is drawn."""
    return _DRAW[finding.name](chest, finding, rng)


def _opacify(chest: Chest, side: str, alpha: Array) -> None:
    """Replace one lung's air by something as dense as tissue: alpha [H, W] in [0, 1] is the share replaced."""
    keep = 1 - (np.clip(alpha, 0, 1) * (chest.lungs[side].lateral > 0)).astype(np.float32)
    chest.air *= keep
    chest.markings *= keep


def _draw_cardiomegaly(chest: Chest, finding: Finding, rng: np.random.Generator) -> Mask:
    """Only the mask: the heart is already drawn with the ratio of `cardiothoracic_ratio`."""
    return (chest.heart > 0.5) & (above_diaphragm(chest.grid, chest.lungs) > -0.08)


def _draw_effusion(chest: Chest, finding: Finding, rng: np.random.Generator) -> Mask:
    """Fluid at the base. Its upper border is a meniscus that rises at the lateral wall."""
    mask = np.zeros(chest.grid.shape, bool)
    patient = chest.patient
    for side in finding.sides:
        lung = chest.lungs[side]
        height = rng.uniform(*((0.14, 0.22), (0.40, 0.55), (0.85, 1.10))[_LEVEL[finding.severity]])
        fall = (0.34, 0.24, 0.22)[_LEVEL[finding.severity]] * rng.uniform(0.9, 1.1)
        across = np.clip(lung.lateral / np.maximum(lung.wall, 0.2), 0, 1)
        surface = patient.base - patient.dome - height + fall * (1 - across**3)
        alpha = smoothstep((chest.grid.y - surface) / 0.07)
        alpha *= 0.70 if finding.hedged else 1.0
        mask |= (alpha * lung.outline > 0.3) & (chest.air > 0.3)
        _opacify(chest, side, alpha)
        deep = smoothstep((chest.grid.y - surface) / 0.6)
        chest.dense += np.float32(0.16) * deep * lung.outline
    return _whole(mask)


def _draw_consolidation(chest: Chest, finding: Finding, rng: np.random.Generator) -> Mask:
    """A dense patch with a soft, uneven border and, in it, bronchi that still hold air."""
    mask = np.zeros(chest.grid.shape, bool)
    for side in finding.sides:
        direction = SIDES[side]
        centre = (direction * rng.uniform(0.50, 0.64) * chest.patient.width, _ZONE_CENTRE[finding.zone])
        level = _LEVEL[finding.severity]
        size = rng.uniform(*((0.20, 0.24), (0.26, 0.32), (0.36, 0.44))[level])
        dx = (chest.grid.x - centre[0]) / size
        dy = (chest.grid.y - centre[1] - rng.uniform(-0.05, 0.05)) / (size * rng.uniform(0.8, 1.05))
        uneven = noise_field(rng, chest.grid.shape, 0.20 * chest.grid.scale)
        patchy = noise_field(rng, chest.grid.shape, 0.045 * chest.grid.scale)
        inside = 1.15 - np.sqrt(dx * dx + dy * dy) + 0.13 * uneven
        alpha = smoothstep(inside / 0.65)
        mask |= alpha * chest.visible_lung(side) > 0.35
        density = (0.70, 0.82, 0.92)[level] * (0.6 if finding.hedged else 1.0)
        heading = float(np.arctan2(centre[1] + 0.05, centre[0] - direction * 0.25))
        start = (direction * 0.28, -0.03 + 0.3 * (centre[1] + 0.03))
        bronchi = draw_lines(chest.grid, tree(rng, start, heading, 0.30, 0.030, 4), blur=1.0)
        alpha *= density * np.clip(1 + 0.13 * patchy, 0.6, 1.15) * (1 - 0.7 * bronchi)
        _opacify(chest, side, alpha)
    return _whole(mask)


def _draw_edema(chest: Chest, finding: Finding, rng: np.random.Generator) -> Mask:
    """Haze around both hila (bat wings), thick vessels, and short septal lines at the periphery."""
    level = _LEVEL[finding.severity]
    strength = (0.36, 0.50, 0.66)[level] * (0.75 if finding.hedged else 1.0)
    patchy = noise_field(rng, chest.grid.shape, 0.10 * chest.grid.scale)
    reticular = np.abs(noise_field(rng, chest.grid.shape, 0.035 * chest.grid.scale))
    mask = np.zeros(chest.grid.shape, bool)
    for side, direction in SIDES.items():
        reach = (0.30, 0.36, 0.44)[level] * rng.uniform(0.95, 1.05)
        dx = (chest.grid.x * direction - 0.36) / reach
        dy = (chest.grid.y - 0.02) / (reach * 1.35)
        wing = np.exp(-((dx * dx + dy * dy) ** 1.5)).astype(np.float32) * chest.visible_lung(side)
        mask |= wing > 0.35
        haze = strength * wing * np.clip(1 + 0.22 * patchy, 0.3, 1.3)
        lines = (0.05 + 0.025 * level) * np.clip(1 - 1.6 * reticular, 0, 1) * wing
        chest.air *= (1 - np.clip(haze, 0, 0.95)).astype(np.float32)
        chest.markings *= 1 + np.float32(0.5) * wing
        chest.markings += lines.astype(np.float32)
        septa = draw_lines(chest.grid, _septal_lines(chest.lungs[side], direction, chest.patient, rng, 8 + 6 * level))
        chest.markings += np.float32(0.10) * septa * chest.visible_lung(side)
    return _whole(mask)


def _septal_lines(lung: Lung, direction: float, patient: Patient, rng: np.random.Generator, count: int) -> list[Line]:
    lines: list[Line] = []
    for y in rng.uniform(0.15, 0.60, count):
        end = patient.width * 0.97
        points = np.array([[direction * (end - rng.uniform(0.06, 0.14)), y + 0.02], [direction * end, y]])
        lines.append((points, 0.010, 1.0))
    return lines


def _draw_atelectasis(chest: Chest, finding: Finding, rng: np.random.Generator) -> Mask:
    draw = _draw_collapse if finding.form == "lobar" else _draw_plates
    mask = np.zeros(chest.grid.shape, bool)
    for side in finding.sides:
        mask |= draw(chest, finding, side, rng)
    return _whole(mask)


def _draw_plates(chest: Chest, finding: Finding, side: str, rng: np.random.Generator) -> Mask:
    """Plate-like atelectasis: straight bands, nearly horizontal, across one zone."""
    direction, width = SIDES[side], chest.patient.width
    level = _LEVEL[finding.severity]
    middle = {"upper": -0.50, "mid": -0.05}.get(finding.zone)
    if middle is None:
        middle = chest.patient.base - chest.patient.dome - 0.20
    bands = np.zeros(chest.grid.shape, np.float32)
    for y in middle + np.linspace(-0.07, 0.09, 2 + level) + rng.normal(0, 0.012, 2 + level):
        begin, end = rng.uniform(0.24, 0.38) * width, rng.uniform(0.80, 0.94) * width
        tilt = rng.uniform(-0.05, 0.12)
        points = [(begin, y - tilt), ((begin + end) / 2, y + rng.normal(0, 0.01)), (end, y + tilt)]
        thickness = rng.uniform(0.030, 0.044) * (1 + 0.25 * level)
        line: Line = (curve([(direction * x, level_y) for x, level_y in points]), thickness, 1.0)
        bands = np.maximum(bands, draw_lines(chest.grid, [line], blur=1.2))
    alpha = bands * chest.visible_lung(side)
    _opacify(chest, side, bands * np.float32((0.80, 0.88, 0.95)[level] * (0.6 if finding.hedged else 1.0)))
    return alpha > 0.25


def _draw_collapse(chest: Chest, finding: Finding, side: str, rng: np.random.Generator) -> Mask:
    """The collapse of a lobe: a wedge that points to the hilum, its fissure a sharp, bowed border."""
    lung, width = chest.lungs[side], chest.patient.width
    shift = rng.uniform(-0.04, 0.04)
    y, lateral = chest.grid.y, lung.lateral / np.float32(width)
    spread = (0.9, 0.95, 1.1)[_LEVEL[finding.severity]]
    if finding.zone == "upper":
        bow = (-0.34 * spread) * np.clip(lateral - 0.15, 0, 1) - 0.22 * np.sin(np.pi * np.clip(lateral, 0, 1))
        fissure = -0.16 + shift + bow * 0.75
        inside = (fissure - y).astype(np.float32)
    else:
        drop = np.clip((y - (shift - 0.06)) / 0.75, 0, 1)
        border = 0.26 + 0.76 * spread * drop**0.9 - 0.12 * np.sin(np.pi * drop)
        inside = np.minimum(border - lateral, y - (shift - 0.06)).astype(np.float32) * np.float32(width)
    alpha = smoothstep(inside / np.float32(0.03))
    visible = alpha * chest.visible_lung(side)
    density = (0.80, 0.88, 0.95)[_LEVEL[finding.severity]] * (0.6 if finding.hedged else 1.0)
    _opacify(chest, side, alpha * np.float32(density))
    edge = np.exp(-((inside / 0.012) ** 2)) * visible
    chest.markings += np.float32(0.05) * edge
    below = -lung.above_diaphragm
    raised = (below >= 0) & (below < elevation(finding).get(side, 0.0)) & (lung.to_wall > 0) & (lung.lateral > 0.1)
    return (visible > 0.35) | raised


def _draw_pneumothorax(chest: Chest, finding: Finding, rng: np.random.Generator) -> Mask:
    """Air between wall and lung, from the apex down: black, without vessels, behind a thin pleural line."""
    (side,) = finding.sides
    lung, patient = chest.lungs[side], chest.patient
    level = _LEVEL[finding.severity]
    lowest = (-0.15, 0.35, 0.80)[level] + rng.uniform(-0.05, 0.05)
    widest = rng.uniform(*((0.16, 0.20), (0.26, 0.32), (0.40, 0.50))[level]) * (0.85 if finding.hedged else 1.0)
    down = np.clip((chest.grid.y - patient.apex) / (lowest - patient.apex), 0, 1)
    gap = np.float32(widest) * np.sqrt(1 - down)
    crown = patient.apex + widest * (0.8 + 0.4 * np.clip(lung.lateral / patient.width, 0, 1))
    beyond = np.maximum(gap - lung.to_wall, crown - chest.grid.y)
    beyond = np.where(down < 1, beyond, np.float32(-1))
    space = smoothstep(beyond / np.float32(0.02) + 0.5) * chest.visible_lung(side)
    chest.markings *= 1 - space
    chest.air *= 1 + np.float32(0.30) * space
    line = np.exp(-((beyond / 0.011) ** 2)).astype(np.float32) * chest.visible_lung(side)
    chest.markings += np.float32(0.22) * line * (0.7 if finding.hedged else 1.0)
    return _whole((space > 0.5) | (line > 0.5))


def _whole(mask: Mask) -> Mask:
    """The mask without small holes and specks, which a radiologist would not draw either."""
    smooth = ndimage.binary_opening(ndimage.binary_closing(mask, iterations=2), iterations=1)
    parts, count = ndimage.label(smooth)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    large = sizes >= _SMALLEST_PART * smooth.sum()
    large[0] = False
    return large[parts]


_DRAW: dict[str, Callable[[Chest, Finding, np.random.Generator], Mask]] = {
    "Atelectasis": _draw_atelectasis,
    "Cardiomegaly": _draw_cardiomegaly,
    "Consolidation": _draw_consolidation,
    "Edema": _draw_edema,
    "Pleural Effusion": _draw_effusion,
    "Pneumothorax": _draw_pneumothorax,
}
