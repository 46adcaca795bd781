"""The masks of findings: without specks, and at the size of the image."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from prior_fast.phantom.textures import clip_box

Mask = NDArray[np.bool_]
_SMALLEST_PART = 0.02


def whole(mask: Mask) -> Mask:
    """The mask [H, W] without small holes and specks, which a radiologist would not draw either."""
    result = np.zeros_like(mask)
    rows, columns = _extent(mask)
    if not len(rows):
        return result
    # Closing and opening reach three pixels beyond the mask.
    box = clip_box(rows[0] - 3, rows[-1] + 3, columns[0] - 3, columns[-1] + 3, mask.shape)
    smooth = mask[box]
    for step in (_dilate, _dilate, _erode, _erode, _erode, _dilate):
        smooth = step(smooth)
    parts, count = ndimage.label(smooth)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    large = sizes >= _SMALLEST_PART * smooth.sum()
    large[0] = False
    result[box] = large[parts]
    return result


def resize_mask(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """The mask [H, W] at another `shape`: True where at least half of a pixel is covered."""
    result = np.zeros(shape, bool)
    rows, columns = _extent(mask)
    if not len(rows):
        return result
    down, across = mask.shape[0] / shape[0], mask.shape[1] / shape[1]
    # Interpolation reaches by a pixel of the coarser of the two images.
    reach = max(1.0, down, across)
    top, bottom = (rows[0] - reach) / down, (rows[-1] + 1 + reach) / down
    left, right = (columns[0] - reach) / across, (columns[-1] + 1 + reach) / across
    box = clip_box(top, bottom, left, right, shape)
    size = box[1].stop - box[1].start, box[0].stop - box[0].start
    source = box[1].start * across, box[0].start * down, box[1].stop * across, box[0].stop * down
    image = Image.fromarray(mask.view(np.uint8) * np.uint8(255))
    result[box] = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=source)) > 127
    return result


def _extent(mask: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows and columns in which the mask has a pixel."""
    return np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))


def _dilate(mask: Mask) -> Mask:
    """The pixels of the mask and their four neighbours."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    return wide


def _erode(mask: Mask) -> Mask:
    """The pixels whose four neighbours are in the mask; nothing beyond the border is."""
    narrow = np.zeros_like(mask)
    inner = narrow[1:-1, 1:-1]
    inner[:] = mask[1:-1, 1:-1]
    for neighbours in (mask[2:, 1:-1], mask[:-2, 1:-1], mask[1:-1, 2:], mask[1:-1, :-2]):
        inner &= neighbours
    return narrow
