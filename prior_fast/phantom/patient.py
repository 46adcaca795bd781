"""The geometry of a made-up patient: what all images of one person share.

Lengths are in patient units (see `Grid`): the thorax is about 1 wide on each side of the midline at its base.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from prior_fast.phantom.lines import Line, draw_numbers, grow_trees
from prior_fast.phantom.textures import Array

SIDES = {"right": -1.0, "left": 1.0}
"""Direction of each of the patient's sides along x: the patient's right is at the image's left."""


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

    @property
    def heart_extent(self) -> tuple[float, float]:
        """The heart's borders (right, left) along x; their distance over 2 * width is the cardiothoracic ratio."""
        across = 2 * self.width * self.cardiothoracic_ratio
        return -0.35 * across, 0.65 * across

    def wall(self, y: Array) -> Array:
        """The distance from the midline to the chest wall at each y; -1 above the apex: nothing is drawn there."""
        rise = np.clip((0.42 - y) / (0.42 - self.apex), 0.0, 1.0)
        wall = self.width * (1 - rise**3.0) ** 0.56 * (1 - 0.04 * np.clip(y - 0.42, 0, 1))
        return np.where(y > self.apex, wall, np.float32(-1))


def _lung_vessels(rng: np.random.Generator) -> list[Line]:
    """Vessels of both lungs, branching from the hila."""
    starts, angles, lengths, numbers = [], [], [], []
    for side, level in ((-1.0, -0.02), (1.0, -0.08)):
        for heading in np.linspace(-1.4, 1.4, 9).tolist():
            angle = heading + rng.normal(0, 0.08)
            angles.append(angle if side > 0 else math.pi - angle)
            starts.append((side * rng.uniform(0.18, 0.28), level + 0.14 * heading + rng.normal(0, 0.03)))
            lengths.append(rng.uniform(0.22, 0.34) * (1.25 if abs(heading) > 0.9 else 1.0))
            numbers.append(draw_numbers(rng, 4))
    return grow_trees(starts, angles, lengths, numbers, 0.026)
