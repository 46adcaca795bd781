"""Lines, tubes and wires. Reports name them; the label Support Devices covers all of them."""

from collections.abc import Callable

import numpy as np

from prior_fast.phantom.anatomy import Chest
from prior_fast.phantom.lines import Line, Patch, curve, draw_lines, fill_polygon


def draw_device(chest: Chest, device: str, rng: np.random.Generator) -> None:
    """Add one of `contents.DEVICES` to the dense layer of `chest`."""
    box, values = _DRAW[device](chest, rng)
    chest.dense[box] += values


def _pacemaker(chest: Chest, rng: np.random.Generator) -> Patch:
    """A generator below the left clavicle with two leads to the right atrium and ventricle."""
    x, y = 0.66 + rng.uniform(-0.05, 0.05), chest.patient.apex + 0.36 + rng.uniform(-0.04, 0.04)
    angles = np.linspace(0, 2 * np.pi, 40)
    corner = np.abs(np.cos(angles)) ** 5 + np.abs(np.sin(angles)) ** 5
    outline = np.stack([x + 0.13 * np.cos(angles) / corner**0.2, y + 0.15 * np.sin(angles) / corner**0.2], axis=1)
    floor = chest.patient.base - 0.25
    entry = [(x - 0.1, y + 0.02), (0.36, y - 0.20), (0.05, y + 0.02), (-0.14, y + 0.30)]
    leads: list[Line] = [
        (curve([*entry, (-0.20, floor - 0.35), (-0.12, floor - 0.28)]), 0.014, 0.9),
        (curve([*entry, (-0.16, floor - 0.20), (0.10, floor), (0.34, floor - 0.02)]), 0.014, 0.9),
    ]
    layer = np.zeros(chest.grid.shape, np.float32)
    box, generator = fill_polygon(chest.grid, outline, 1.0)
    layer[box] = np.float32(0.75) * generator
    box, wires = draw_lines(chest.grid, leads, 0.6)
    np.maximum(layer[box], np.float32(0.5) * wires, out=layer[box])
    return (slice(None), slice(None)), layer


def _central_line(chest: Chest, rng: np.random.Generator) -> Patch:
    """A catheter from the right internal jugular vein; its tip lies over the superior vena cava."""
    top = chest.patient.apex
    points = [
        (-0.24, top - 0.45),
        (-0.20, top - 0.10),
        (-0.15, top + 0.30),
        (-0.14, top + 0.80 + rng.uniform(-0.1, 0.1)),
    ]
    return _wires(chest, [(curve(points), 0.018, 1.0)], 0.6, strength=0.38)


def _endotracheal_tube(chest: Chest, rng: np.random.Generator) -> Patch:
    """Two parallel walls in the trachea, the tip 3 to 6 cm above the carina."""
    tip = -0.34 - rng.uniform(0.20, 0.40)
    walls: list[Line] = [(np.array([[dx, -1.7], [dx, tip]]), 0.012, 1.0) for dx in (-0.03, 0.03)]
    return _wires(chest, walls, 0.6, strength=0.32)


def _enteric_tube(chest: Chest, rng: np.random.Generator) -> Patch:
    """A tube along the midline that turns into the stomach, below the left hemidiaphragm."""
    base = chest.patient.base
    points = [
        (0.02, -1.7),
        (0.03, -0.6),
        (0.05, 0.2),
        (0.10, base - 0.05),
        (0.32, base + 0.16 + rng.uniform(-0.03, 0.05)),
    ]
    return _wires(chest, [(curve(points), 0.022, 1.0)], 0.7, strength=0.34)


def _sternal_wires(chest: Chest, rng: np.random.Generator) -> Patch:
    """Twisted loops down the midline."""
    lines: list[Line] = []
    angles = np.linspace(0.4, 2 * np.pi, 16)
    for y in np.linspace(-0.55, 0.35, 6) + rng.normal(0, 0.01, 6):
        loop = np.stack([0.055 * np.cos(angles) + rng.normal(0, 0.01), y + 0.035 * np.sin(angles)], axis=1)
        lines.append((loop, 0.012, 1.0))
    return _wires(chest, lines, 0.6, strength=0.5)


def _wires(chest: Chest, lines: list[Line], blur: float, strength: float) -> Patch:
    box, values = draw_lines(chest.grid, lines, blur)
    return box, values * np.float32(strength)


_DRAW: dict[str, Callable[[Chest, np.random.Generator], Patch]] = {
    "pacemaker": _pacemaker,
    "central line": _central_line,
    "endotracheal tube": _endotracheal_tube,
    "enteric tube": _enteric_tube,
    "sternal wires": _sternal_wires,
}
