"""The model's input size, and the resize to it."""

import numpy as np
from PIL import Image

IMAGE_SIZE = 224
Box = tuple[float, float, float, float]


def resized(gray: Image.Image, box: Box | None = None) -> np.ndarray:
    """Resize an 8-bit gray image, or the box (left, top, right, bottom) of it, ignoring its aspect ratio.

    The resize is bilinear with antialiasing (Pillow's BILINEAR).

    Returns:
        uint8 [224, 224].
    """
    return np.array(gray.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR, box))
