"""A simple lateral view: outline, spine, heart, lung and posterior fluid. Datasets of frontal views leave it out."""

import numpy as np
from numpy.typing import NDArray

from prior_fast.phantom.anatomy import AIR
from prior_fast.phantom.contents import StudyContents, stream
from prior_fast.phantom.patient import Patient
from prior_fast.phantom.render import expose
from prior_fast.phantom.textures import Grid, Noise, keep_freed_memory, smoothstep

_HEIGHT, _WIDTH = 384, 330


def render_lateral(
    patient: Patient, contents: StudyContents, seed: int, study: int, image: int, size: int
) -> NDArray[np.uint8]:
    """Draw the patient from the side, with the front at the image's left.

    Returns:
        [H, W] uint8, the longer side `size` pixels.
    """
    keep_freed_memory()
    rng = stream(seed, 3, study, image)
    scale = _HEIGHT / 2.5 * rng.uniform(0.95, 1.05)
    grid = Grid.make((_HEIGHT, _WIDTH), scale, (_WIDTH * 0.5, _HEIGHT * 0.52), float(np.deg2rad(rng.normal(0, 2))))
    x, y = grid.x, grid.y
    front = grid.of_y(lambda y: -0.72 - 0.18 * smoothstep((y + 1.0) / 1.2))
    back = grid.of_y(lambda y: 0.78 + 0.10 * np.sin(1.6 * y))
    floor = grid.of_x(lambda x: patient.base - 0.15 + 0.35 * np.clip(x, -0.3, 1) ** 2 - 0.12 * np.clip(-x, 0, 1))
    roof = grid.of_x(lambda x: patient.apex + 0.9 * np.clip(np.abs(x - 0.1) - 0.15, 0, 1) ** 1.6)
    behind_front, before_back, above_floor = x - front, back - x, floor - y
    body = smoothstep(np.minimum(behind_front, before_back) * np.float32(1 / 0.05))
    behind_front -= np.float32(0.12)
    before_back -= np.float32(0.10)
    inside = np.minimum(behind_front, before_back, out=before_back)
    np.minimum(inside, above_floor, out=inside)
    np.minimum(inside, y - roof, out=inside)
    air = smoothstep(inside * np.float32(1 / 0.05))
    ratio = patient.cardiothoracic_ratio + (0.14 if contents.finding("Cardiomegaly") else 0.0)
    distance = grid.of_x(lambda x: ((x + 0.30) / (0.75 * ratio)) ** 2)
    distance += grid.of_y(lambda y: ((y - patient.base + 0.48) / (0.95 * ratio)) ** 2)
    heart = 1 - np.sqrt(distance, out=distance)
    air *= 1 - np.float32(0.75) * smoothstep(heart * np.float32(1 / 0.15))
    effusion = contents.finding("Pleural Effusion")
    if effusion:
        depth = {"mild": 0.22, "moderate": 0.45, "severe": 0.85}[effusion.severity]
        surface = grid.of_x(lambda x: patient.base + 0.10 - depth - 0.35 * np.clip(x, 0, 1) ** 2)
        fluid = smoothstep((y - surface) * np.float32(1 / 0.08))
        fluid *= grid.of_x(lambda x: smoothstep((x + 0.2) / 0.3))
        air *= 1 - fluid
    spine = grid.x - grid.of_y(lambda y: 0.52 + 0.08 * np.sin(1.8 * y))
    spine *= np.float32(1 / 0.10)
    spine *= spine
    spine = np.exp(np.negative(spine, out=spine), out=spine)
    spine *= grid.of_y(lambda y: 0.16 + 0.05 * np.cos(2 * np.pi * y / patient.rib_spacing))
    ribs = np.cos((y - np.float32(0.45) * x) * np.float32(2 * np.pi / patient.rib_spacing))
    texture = Noise.draw(rng, grid.shape, 6.0)[:, :] * np.float32(0.02)
    texture += np.float32(0.03) * ribs
    texture -= np.float32(AIR)
    texture *= air
    spine += np.float32(1.05)
    spine += np.float32(0.15) * smoothstep(above_floor * np.float32(-1 / 0.3))
    spine *= body
    spine += texture
    return expose(spine, size, rng)
