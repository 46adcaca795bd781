"""A simple lateral view: outline, spine, heart, lung and posterior fluid. Datasets of frontal views leave it out."""

import numpy as np
from numpy.typing import NDArray

from prior_fast.phantom.anatomy import AIR, Patient
from prior_fast.phantom.contents import StudyContents, stream
from prior_fast.phantom.render import expose
from prior_fast.phantom.textures import Grid, noise_field, smoothstep

_HEIGHT, _WIDTH = 384, 330


def render_lateral(
    patient: Patient, contents: StudyContents, seed: int, study: int, image: int, size: int
) -> NDArray[np.uint8]:
    """Draw the patient from the side, with the front at the image's left.

    Returns:
        [H, W] uint8, the longer side `size` pixels.
    """
    rng = stream(seed, 3, study, image)
    scale = _HEIGHT / 2.5 * rng.uniform(0.95, 1.05)
    grid = Grid.make((_HEIGHT, _WIDTH), scale, (_WIDTH * 0.5, _HEIGHT * 0.52), float(np.deg2rad(rng.normal(0, 2))))
    x, y = grid.x, grid.y
    front = -0.72 - 0.18 * smoothstep((y + 1.0) / np.float32(1.2))
    back = 0.78 + 0.10 * np.sin(1.6 * y)
    body = smoothstep((np.minimum(x - front, back - x) / 0.05).astype(np.float32))
    floor = patient.base - 0.15 + 0.35 * np.clip(x, -0.3, 1) ** 2 - 0.12 * np.clip(-x, 0, 1)
    roof = patient.apex + 0.9 * np.clip(np.abs(x - 0.1) - 0.15, 0, 1) ** 1.6
    inside = np.minimum.reduce([x - front - 0.12, back - 0.10 - x, floor - y, y - roof])
    air = smoothstep((inside / 0.05).astype(np.float32))
    ratio = patient.cardiothoracic_ratio + (0.14 if contents.finding("Cardiomegaly") else 0.0)
    heart = 1 - np.hypot((x + 0.30) / (0.75 * ratio), (y - patient.base + 0.48) / (0.95 * ratio))
    air *= 1 - 0.75 * smoothstep((heart / 0.15).astype(np.float32))
    effusion = contents.finding("Pleural Effusion")
    if effusion:
        depth = {"mild": 0.22, "moderate": 0.45, "severe": 0.85}[effusion.severity]
        surface = patient.base + 0.10 - depth - 0.35 * np.clip(x, 0, 1) ** 2
        air *= 1 - smoothstep(((y - surface) / 0.08).astype(np.float32)) * smoothstep((x + 0.2) / np.float32(0.3))
    spine = np.exp(-(((x - 0.52 - 0.08 * np.sin(1.8 * y)) / 0.10) ** 2)) * (
        0.16 + 0.05 * np.cos(2 * np.pi * y / patient.rib_spacing)
    )
    ribs = 0.03 * np.cos(2 * np.pi * (y - 0.45 * x) / patient.rib_spacing) * air
    grain = 0.02 * noise_field(rng, grid.shape, 6.0) * air
    shade = body * (1.05 + 0.15 * smoothstep((y - floor).astype(np.float32) / np.float32(0.3)) + spine)
    return expose((shade - AIR * air + ribs + grain).astype(np.float32), size, rng)
