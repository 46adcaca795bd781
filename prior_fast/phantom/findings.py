"""Drawing the findings into the layers of a chest. Each function returns the mask of the pixels that it drew.

The appearance follows the Fleischner Society's glossary of terms for thoracic imaging (Radiology 2008;246:697).
"""

from collections.abc import Callable

import numpy as np

from prior_fast.phantom.anatomy import Chest, Lung
from prior_fast.phantom.contents import Finding
from prior_fast.phantom.lines import Line, curve, draw_lines, tree
from prior_fast.phantom.masks import Mask, whole
from prior_fast.phantom.patient import SIDES, Patient
from prior_fast.phantom.textures import Array, Noise, smoothstep

_LEVEL = {"mild": 0, "moderate": 1, "severe": 2}
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


def _opacify(chest: Chest, lung: Lung, alpha: Array) -> None:
    """Replace one lung's air by something as dense as tissue: alpha [h, w] in the lung's box is the share replaced."""
    keep = np.clip(alpha, 0, 1)
    # The box reaches into the other half of the chest where the patient is turned.
    keep *= lung.lateral > 0
    np.subtract(1, keep, out=keep)
    chest.air[lung.box] *= keep
    chest.markings[lung.box] *= keep


def _draw_cardiomegaly(chest: Chest, finding: Finding, rng: np.random.Generator) -> Mask:
    """Only the mask: the heart is already drawn with the ratio of `cardiothoracic_ratio`."""
    return (chest.heart > 0.5) & (chest.above_diaphragm > -0.08)


def _draw_effusion(chest: Chest, finding: Finding, rng: np.random.Generator) -> Mask:
    """Fluid at the base. Its upper border is a meniscus that rises at the lateral wall."""
    mask = np.zeros(chest.grid.shape, bool)
    patient = chest.patient
    for side in finding.sides:
        lung = chest.lungs[side]
        height = rng.uniform(*((0.14, 0.22), (0.40, 0.55), (0.85, 1.10))[_LEVEL[finding.severity]])
        fall = (0.34, 0.24, 0.22)[_LEVEL[finding.severity]] * rng.uniform(0.9, 1.1)
        across = np.clip(lung.lateral / np.maximum(lung.wall, np.float32(0.2)), 0, 1)
        depth = across * across
        depth *= across
        depth *= np.float32(fall)
        depth += lung.grid.y
        depth -= np.float32(patient.base - patient.dome - height + fall)
        alpha = smoothstep(depth * np.float32(1 / 0.07))
        alpha *= np.float32(0.70 if finding.hedged else 1.0)
        mask[lung.box] |= (alpha * lung.outline > 0.3) & (chest.air[lung.box] > 0.3)
        _opacify(chest, lung, alpha)
        deep = smoothstep(depth * np.float32(1 / 0.6))
        deep *= np.float32(0.16)
        deep *= lung.outline
        chest.dense[lung.box] += deep
    return whole(mask)


def _draw_consolidation(chest: Chest, finding: Finding, rng: np.random.Generator) -> Mask:
    """A dense patch with a soft, uneven border and, in it, bronchi that still hold air."""
    mask = np.zeros(chest.grid.shape, bool)
    shape, scale = chest.grid.shape, chest.grid.scale
    for side in finding.sides:
        direction, lung = SIDES[side], chest.lungs[side]
        centre = (direction * rng.uniform(0.50, 0.64) * chest.patient.width, _ZONE_CENTRE[finding.zone])
        level = _LEVEL[finding.severity]
        size = rng.uniform(*((0.20, 0.24), (0.26, 0.32), (0.36, 0.44))[level])
        middle, height = centre[1] + rng.uniform(-0.05, 0.05), size * rng.uniform(0.8, 1.05)
        distance = _distance(lung, (centre[0], middle), (size, height))
        np.sqrt(distance, out=distance)
        inside = Noise.draw(rng, shape, 0.20 * scale)[lung.box] * np.float32(0.13)
        patchy = Noise.draw(rng, shape, 0.045 * scale)[lung.box] * np.float32(0.13)
        inside += np.float32(1.15)
        inside -= distance
        inside *= np.float32(1 / 0.65)
        alpha = smoothstep(inside)
        mask[lung.box] |= alpha * chest.visible_lung(side) > 0.35
        density = (0.70, 0.82, 0.92)[level] * (0.6 if finding.hedged else 1.0)
        heading = float(np.arctan2(centre[1] + 0.05, centre[0] - direction * 0.25))
        start = (direction * 0.28, -0.03 + 0.3 * (centre[1] + 0.03))
        box, bronchi = draw_lines(lung.grid, tree(rng, start, heading, 0.30, 0.030, 4), blur=1.0)
        patchy += np.float32(1)
        alpha *= np.clip(patchy, 0.6, 1.15, out=patchy)
        alpha *= np.float32(density)
        alpha[box] *= 1 - np.float32(0.7) * bronchi
        _opacify(chest, lung, alpha)
    return whole(mask)


def _distance(lung: Lung, centre: tuple[float, float], radii: tuple[float, float]) -> Array:
    """The square of the distance from `centre` in the lung's box, [h, w], where the ellipse with `radii` is at 1."""
    square = lung.grid.of_x(lambda x: ((x - centre[0]) / radii[0]) ** 2)
    square += lung.grid.of_y(lambda y: ((y - centre[1]) / radii[1]) ** 2)
    return square


def _draw_edema(chest: Chest, finding: Finding, rng: np.random.Generator) -> Mask:
    """Haze around both hila (bat wings), thick vessels, and short septal lines at the periphery."""
    level = _LEVEL[finding.severity]
    strength = (0.36, 0.50, 0.66)[level] * (0.75 if finding.hedged else 1.0)
    patchy = Noise.draw(rng, chest.grid.shape, 0.10 * chest.grid.scale)
    reticular = Noise.draw(rng, chest.grid.shape, 0.035 * chest.grid.scale)
    mask = np.zeros(chest.grid.shape, bool)
    for side, direction in SIDES.items():
        lung = chest.lungs[side]
        air, markings = chest.air[lung.box], chest.markings[lung.box]
        reach = (0.30, 0.36, 0.44)[level] * rng.uniform(0.95, 1.05)
        square = _distance(lung, (direction * 0.36, 0.02), (reach, reach * 1.35))
        wing = np.sqrt(square)
        wing *= square
        np.negative(wing, out=wing)
        np.exp(wing, out=wing)
        wing *= chest.visible_lung(side)
        mask[lung.box] |= wing > 0.35
        haze = patchy[lung.box] * np.float32(0.22)
        haze += np.float32(1)
        np.clip(haze, 0.3, 1.3, out=haze)
        haze *= wing
        haze *= np.float32(-strength)
        haze += np.float32(1)
        air *= np.maximum(haze, np.float32(0.05), out=haze)
        net = np.abs(reticular[lung.box])
        net *= np.float32(-1.6)
        net += np.float32(1)
        np.maximum(net, 0, out=net)
        net *= np.float32(0.05 + 0.025 * level)
        # Thicker vessels and a net of lines: markings * (1 + wing / 2) + wing * net.
        net += np.float32(0.5) * markings
        net *= wing
        markings += net
        box, septa = draw_lines(lung.grid, _septal_lines(direction, chest.patient, rng, 8 + 6 * level))
        septa *= chest.visible_lung(side)[box]
        markings[box] += np.float32(0.10) * septa
    return whole(mask)


def _septal_lines(direction: float, patient: Patient, rng: np.random.Generator, count: int) -> list[Line]:
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
        mask[chest.lungs[side].box] |= draw(chest, finding, side, rng)
    return whole(mask)


def _draw_plates(chest: Chest, finding: Finding, side: str, rng: np.random.Generator) -> Mask:
    """Plate-like atelectasis: straight bands, nearly horizontal, across one zone.

    The mask is that of the lung's box.
    """
    direction, width, lung = SIDES[side], chest.patient.width, chest.lungs[side]
    level = _LEVEL[finding.severity]
    middle = {"upper": -0.50, "mid": -0.05}.get(finding.zone)
    if middle is None:
        middle = chest.patient.base - chest.patient.dome - 0.20
    bands = np.zeros(lung.grid.shape, np.float32)
    for y in middle + np.linspace(-0.07, 0.09, 2 + level) + rng.normal(0, 0.012, 2 + level):
        begin, end = rng.uniform(0.24, 0.38) * width, rng.uniform(0.80, 0.94) * width
        tilt = rng.uniform(-0.05, 0.12)
        points = [(begin, y - tilt), ((begin + end) / 2, y + rng.normal(0, 0.01)), (end, y + tilt)]
        thickness = rng.uniform(0.030, 0.044) * (1 + 0.25 * level)
        line: Line = (curve([(direction * x, level_y) for x, level_y in points]), thickness, 1.0)
        box, band = draw_lines(lung.grid, [line], blur=1.2)
        np.maximum(bands[box], band, out=bands[box])
    mask: Mask = bands * chest.visible_lung(side) > 0.25
    bands *= np.float32((0.80, 0.88, 0.95)[level] * (0.6 if finding.hedged else 1.0))
    _opacify(chest, lung, bands)
    return mask


def _draw_collapse(chest: Chest, finding: Finding, side: str, rng: np.random.Generator) -> Mask:
    """The collapse of a lobe: a wedge that points to the hilum, its fissure a sharp, bowed border.

    The mask is that of the lung's box.
    """
    lung, direction, width = chest.lungs[side], SIDES[side], chest.patient.width
    shift = rng.uniform(-0.04, 0.04)
    spread = (0.9, 0.95, 1.1)[_LEVEL[finding.severity]]

    def fissure(x: Array) -> Array:
        lateral = x * (direction / width)
        bow = (-0.34 * spread) * np.clip(lateral - 0.15, 0, 1) - 0.22 * np.sin(np.pi * np.clip(lateral, 0, 1))
        return -0.16 + shift + bow * 0.75

    def border(y: Array) -> Array:
        drop = np.clip((y - (shift - 0.06)) / 0.75, 0, 1)
        return width * (0.26 + 0.76 * spread * drop**0.9 - 0.12 * np.sin(np.pi * drop))

    if finding.zone == "upper":
        inside = lung.grid.of_x(fissure) - lung.grid.y
    else:
        inside = lung.grid.of_y(border) - lung.lateral
        np.minimum(inside, lung.grid.of_y(lambda y: width * (y - (shift - 0.06))), out=inside)
    alpha = smoothstep(inside * np.float32(1 / 0.03))
    visible = alpha * chest.visible_lung(side)
    density = (0.80, 0.88, 0.95)[_LEVEL[finding.severity]] * (0.6 if finding.hedged else 1.0)
    _opacify(chest, lung, alpha * np.float32(density))
    chest.markings[lung.box] += _ridge(inside, 0.012, 0.05) * visible
    below = -lung.above_diaphragm
    raised = (below >= 0) & (below < elevation(finding).get(side, 0.0)) & (lung.to_wall > 0) & (lung.lateral > 0.1)
    return (visible > 0.35) | raised


def _ridge(distance: Array, width: float, strength: float) -> Array:
    """strength * exp(-(distance / width)^2)."""
    ridge = distance * np.float32(1 / width)
    ridge *= ridge
    np.negative(ridge, out=ridge)
    np.exp(ridge, out=ridge)
    ridge *= np.float32(strength)
    return ridge


def _draw_pneumothorax(chest: Chest, finding: Finding, rng: np.random.Generator) -> Mask:
    """Air between wall and lung, from the apex down: black, without vessels, behind a thin pleural line."""
    (side,) = finding.sides
    lung, patient = chest.lungs[side], chest.patient
    level = _LEVEL[finding.severity]
    lowest = (-0.15, 0.35, 0.80)[level] + rng.uniform(-0.05, 0.05)
    widest = rng.uniform(*((0.16, 0.20), (0.26, 0.32), (0.40, 0.50))[level]) * (0.85 if finding.hedged else 1.0)

    def gap(y: Array) -> Array:
        return widest * np.sqrt(1 - np.clip((y - patient.apex) / (lowest - patient.apex), 0, 1))

    def crown(x: Array) -> Array:
        return patient.apex + widest * (0.8 + 0.4 * np.clip(x * (SIDES[side] / patient.width), 0, 1))

    beyond = lung.grid.of_y(gap)
    beyond -= lung.to_wall
    np.maximum(beyond, lung.grid.of_x(crown) - lung.grid.y, out=beyond)
    beyond[lung.grid.y >= lowest] = -1
    space = smoothstep(beyond * np.float32(1 / 0.02) + np.float32(0.5))
    space *= chest.visible_lung(side)
    chest.markings[lung.box] *= 1 - space
    chest.air[lung.box] *= 1 + np.float32(0.30) * space
    line = _ridge(beyond, 0.011, 1.0)
    line *= chest.visible_lung(side)
    chest.markings[lung.box] += np.float32(0.22 * (0.7 if finding.hedged else 1.0)) * line
    mask = np.zeros(chest.grid.shape, bool)
    mask[lung.box] = (space > 0.5) | (line > 0.5)
    return whole(mask)


_DRAW: dict[str, Callable[[Chest, Finding, np.random.Generator], Mask]] = {
    "Atelectasis": _draw_atelectasis,
    "Cardiomegaly": _draw_cardiomegaly,
    "Consolidation": _draw_consolidation,
    "Edema": _draw_edema,
    "Pleural Effusion": _draw_effusion,
    "Pneumothorax": _draw_pneumothorax,
}
