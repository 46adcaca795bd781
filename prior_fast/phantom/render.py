"""From a patient and the contents of a study to the pixels of one X-ray."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prior_fast.phantom.anatomy import draw_chest
from prior_fast.phantom.contents import DEVICES, FINDINGS, StudyContents, stream
from prior_fast.phantom.devices import draw_device
from prior_fast.phantom.findings import cardiothoracic_ratio, draw_finding, elevation
from prior_fast.phantom.masks import Mask, resize_mask
from prior_fast.phantom.patient import Patient
from prior_fast.phantom.textures import Array, Grid, Noise, keep_freed_memory

# The drawing always has this size, so that a seed gives the same picture at every output size.
_DRAWN_LONGER_SIDE = 384


@dataclass(frozen=True)
class Drawing:
    """An X-ray and the masks of its findings.

    Attributes:
        pixels: [H, W] uint8.
        masks: for each finding's name, [H, W] bool.
    """

    pixels: NDArray[np.uint8]
    masks: dict[str, Mask]


def render_frontal(patient: Patient, contents: StudyContents, seed: int, study: int, image: int, size: int) -> Drawing:
    """Draw image number `image` of a study. Its images show the same findings with different poses and exposures.

    size: the longer side in pixels.
    """
    keep_freed_memory()
    pose = stream(seed, 3, study, image)
    for finding in contents.findings:
        if finding.name == "Cardiomegaly":
            patient = patient.with_heart(cardiothoracic_ratio(finding, stream(seed, 4, study, 0)))
    grid = _sample_grid(pose)
    raised = {side: rise for finding in contents.findings for side, rise in elevation(finding).items()}
    chest = draw_chest(patient, grid, raised, pose)
    masks = {}
    for finding in contents.findings:
        rng = stream(seed, 4, study, 1 + FINDINGS.index(finding.name))
        masks[finding.name] = draw_finding(chest, finding, rng)
    for device in contents.devices:
        draw_device(chest, device, stream(seed, 5, study, DEVICES.index(device)))
    pixels = expose(chest.attenuation(), size, pose)
    return Drawing(pixels, {name: resize_mask(mask, pixels.shape) for name, mask in masks.items()})


def expose(attenuation: Array, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Simulate film and scanner: attenuation [H, W] -> gray levels with uneven light, contrast and noise.

    size: the longer side of the result in pixels.
    """
    noise = Noise.draw(rng, (attenuation.shape[0], attenuation.shape[1]), 0.8 * max(attenuation.shape))
    thickest = rng.uniform(1.35, 1.6)
    black, white, gamma = rng.uniform(0, 40), rng.uniform(185, 255), rng.uniform(0.75, 1.35)
    shape = _scaled(attenuation.shape, size)
    # The film's curve is computed at the smaller of the two sizes; both orders give the same picture but for rounding.
    first = shape[0] <= attenuation.shape[0]
    gray = _resize(attenuation, shape) if first else attenuation.copy()
    light = noise.stretched((gray.shape[0], gray.shape[1]))
    gray += np.float32(0.03) * light
    gray *= np.float32(1 / thickest)
    np.clip(gray, 0, 1.2, out=gray)
    np.power(gray, np.float32(gamma), out=gray)
    gray *= np.float32(white - black)
    gray += np.float32(black)
    gray = gray if first else _resize(gray, shape)
    quantum = rng.standard_normal(shape, dtype=np.float32)
    quantum *= np.float32(rng.uniform(1.5, 5.0))
    gray += quantum
    np.rint(gray, out=gray)
    return np.clip(gray, 0, 255, out=gray).astype(np.uint8)


def _resize(values: Array, shape: tuple[int, int]) -> Array:
    image = Image.fromarray(values).resize(shape[::-1], Image.Resampling.BICUBIC)
    return np.array(image)


def _sample_grid(rng: np.random.Generator) -> Grid:
    aspect = rng.uniform(0.84, 1.14)
    longer = _DRAWN_LONGER_SIDE
    height, width = (longer, round(longer * aspect)) if aspect < 1 else (round(longer / aspect), longer)
    scale = min(width / 2.50, height / 2.48) * rng.uniform(0.94, 1.06)
    origin = (width * (0.5 + rng.uniform(-0.03, 0.03)), height * (0.52 + rng.uniform(-0.025, 0.025)))
    return Grid.make((height, width), scale, origin, float(np.deg2rad(rng.normal(0, 1.8))))


def _scaled(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    longer = max(shape)
    return max(1, round(shape[0] * size / longer)), max(1, round(shape[1] * size / longer))
