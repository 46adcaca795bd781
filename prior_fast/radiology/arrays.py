"""Arrays of pixels as 8-bit gray images."""

import numpy as np
from PIL import Image

from prior_fast.radiology.gray_levels import gray_levels


def array_image(pixels: np.ndarray) -> Image.Image:
    """The gray image of an array, scaled as `gray_levels` says; colors become luma (Pillow's "L").

    Args:
        pixels: bool, integer or float [H, W], [H, W, 1] or [1, H, W], or uint8 [H, W, 3].

    Raises:
        ValueError: another shape or dtype; the message begins with "is" and continues the array's name.
        UnreadableImage: a value is NaN or infinite.
    """
    shape = pixels.shape
    if pixels.size and len(shape) == 3 and shape[2] == 3 and pixels.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
    plane = pixels
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        plane = pixels[..., 0] if shape[2] == 1 else pixels[0]
    if plane.ndim != 2 or not plane.size or plane.dtype.kind not in "biuf":
        raise ValueError(
            f"is {pixels.dtype} {list(shape)}, wanted uint8, uint16, another integer, bool or float [H, W], "
            "[H, W, 1] or [1, H, W], or uint8 [H, W, 3]"
        )
    return Image.fromarray(np.ascontiguousarray(gray_levels(plane)))
