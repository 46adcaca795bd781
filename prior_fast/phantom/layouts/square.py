"""Frontal drawings made square, as RSNA's and SIIM-ACR's images are."""

import numpy as np
from PIL import Image
from scipy import ndimage

from prior_fast.phantom.anatomy import Patient
from prior_fast.phantom.contents import StudyContents, stream
from prior_fast.phantom.generate import contents_of
from prior_fast.phantom.mimic import Place
from prior_fast.phantom.render import Drawing, render_frontal

_EIGHT_NEIGHBOURS = np.ones((3, 3), np.int64)


def draw_square(place: Place, seed: int, size: int) -> tuple[StudyContents, Drawing]:
    """The contents of the study at `place`, and its first frontal image with masks, resized to `size` x `size`."""
    contents = contents_of(seed, place)
    patient = Patient.sample(stream(seed, 8, place.subject))
    drawing = render_frontal(patient, contents, seed, place.study, 0, size)
    pixels = np.asarray(Image.fromarray(drawing.pixels).resize((size, size), Image.Resampling.BICUBIC))
    return contents, Drawing(pixels, {name: _resize(mask, size) for name, mask in drawing.masks.items()})


def parts_of(mask: np.ndarray) -> list[np.ndarray]:
    """The connected parts of a bool mask [H, W], each as a mask; pixels that touch at a corner are connected."""
    labels, count = ndimage.label(mask, structure=_EIGHT_NEIGHBOURS)
    return [labels == number for number in range(1, count + 1)]


def _resize(mask: np.ndarray, size: int) -> np.ndarray:
    smooth = Image.fromarray(mask.astype(np.uint8) * 255).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(smooth) > 127
