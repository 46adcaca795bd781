"""Boxes and masks of findings, in pixels of the 224x224 image."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from prior_fast.radiology.xray import IMAGE_SIZE, decode_file

# x, y, width, height.
Box = tuple[float, float, float, float]


def read_mask(path: Path) -> np.ndarray:
    """Decode a mask (set where its gray level is above 127), turn it as its EXIF orientation says, and resize it.

    A pixel is set if at least half of its area is set.

    Returns:
        bool [224, 224].

    Raises:
        UnreadableImage: the file is absent, empty, truncated or not an image.
    """
    image, _, _ = decode_file(path)
    mask = np.asarray(image) > 127
    shares = Image.fromarray(mask.astype(np.float32)).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)
    return np.asarray(shares) >= 0.5


def box_mask(x: float, y: float, width: float, height: float) -> np.ndarray:
    """The mask of a box in pixels of the 224x224 image: bool [224, 224], set at pixels whose center is in the box."""
    centers = np.arange(IMAGE_SIZE) + 0.5
    rows, columns = (centers >= y) & (centers < y + height), (centers >= x) & (centers < x + width)
    return rows[:, None] & columns[None, :]


def encode_mask(mask: np.ndarray) -> bytes:
    """A bool [224, 224] mask as a 1-bit PNG."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG", optimize=False)
    return buffer.getvalue()


def scale_box(box: Box, size: tuple[int, int]) -> Box | None:
    """Clip a box to an image of `size` (width, height) in pixels, and scale it to 224x224.

    Returns:
        x, y, width, height; None if the box is outside of the image, empty or not finite.
    """
    if not all(map(math.isfinite, box)):
        return None
    scaled = []
    for start, length, extent in zip(box[:2], box[2:], size):
        begin, end = max(0.0, start), min(float(extent), start + length)
        if length <= 0 or end <= begin:
            return None
        scaled.append((begin * IMAGE_SIZE / extent, (end - begin) * IMAGE_SIZE / extent))
    (x, width), (y, height) = scaled
    return x, y, width, height


def shrink_mask(mask: np.ndarray) -> tuple[np.ndarray, bool]:
    """Resize a mask to 224x224. A pixel is set if at least half of its area is set.

    If this sets no pixel, the pixels with the greatest share are set, so that a small finding does not vanish.

    Args:
        mask: bool [H, W].

    Returns:
        bool [224, 224], and whether the rule for small findings was used.
    """
    shares = _shares(_shares(mask).T).T
    # Rounding can make a share of one half slightly smaller.
    shrunk = shares >= 0.5 - 1e-9
    if shrunk.any() or not mask.any():
        return shrunk, False
    return shares >= shares.max() - 1e-9, True


def _shares(values: np.ndarray) -> np.ndarray:
    """The means of `values` [H, W] over 224 equal intervals of its rows, which may divide a row: [224, W]."""
    rows = len(values)
    sums = np.zeros((rows + 2, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:-1])
    sums[-1] = sums[-2]
    edges = np.arange(IMAGE_SIZE + 1) * (rows / IMAGE_SIZE)
    whole = np.minimum(edges.astype(np.int64), rows)
    upto = sums[whole] + (edges - whole)[:, None] * (sums[whole + 1] - sums[whole])
    return np.diff(upto, axis=0) * (IMAGE_SIZE / rows)
