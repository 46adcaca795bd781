"""Gray values of any kind as 8-bit gray levels: which range of values black and white stand for."""

import math
from collections.abc import Callable

import numpy as np

from prior_fast.radiology.image_file import UnreadableImage

Range = tuple[float, float]
# Without a declared range, integers and floats above 255 are taken as 16-bit values.
_BITS = 16
# TorchXRayVision scales its images to -1024..1024.
_XRV = 1024
_BLOCK = 1 << 20


def gray_levels(values: np.ndarray, bits: int = _BITS) -> np.ndarray:
    """Scale gray values to 0..255. The range that they are scaled from follows from what they mean.

    - uint8 is returned as it is. Of bool, False is 0 and True 255.
    - Other integers: `declared_range` of `bits` bits. Above 65535: 0 to the highest value. With negative values: lowest
      to highest value.
    - Floats: the first of [0, 1], [-1, 1], [0, 255] that holds them; with negative values [-1024, 1024] if it holds
      them; without, the rule of integers; else lowest to highest value.

    Args:
        values: [H, W] bool, integer or float, at least one.
        bits: the bits that the file declares for unsigned integers, up to 16.

    Returns:
        uint8 [H, W].

    Raises:
        UnreadableImage: a value is NaN or infinite.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind in "iu":
        return scaled(values, *_integer_range(int(values.min()), int(values.max()), bits))
    lowest, highest = float(values.min()), float(values.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise UnreadableImage("a pixel is NaN or infinite")
    return scaled(values, *_float_range(lowest, highest, bits))


def scaled(values: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """Map lowest..highest to 0..255, rounded to the nearest level: uint8 of the same shape. Values outside are clipped.

    If the range is empty, all levels are 0.
    """
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        # A level for each value that can occur costs less than one for each pixel.
        table = scaled(np.arange(2**16, dtype=np.float64), lowest, highest)
        return in_blocks(lambda block: table[block], values)
    if not lowest < highest:
        return np.zeros(values.shape, np.uint8)

    def levels(block: np.ndarray) -> np.ndarray:
        shares = (block.astype(np.float64) - lowest) / (highest - lowest)
        return np.rint(shares.clip(0, 1) * 255).astype(np.uint8)

    return in_blocks(levels, values)


def in_blocks(function: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """Compute gray levels, uint8 of the shape of `values`, from a million values at a time.

    Intermediate results of 64 bits for all pixels would need several times the memory of the image.
    """
    flat, levels = values.reshape(-1), np.empty(values.shape, np.uint8)
    out = levels.reshape(-1)
    for begin in range(0, len(flat), _BLOCK):
        out[begin : begin + _BLOCK] = function(flat[begin : begin + _BLOCK])
    return levels


def declared_range(lowest: int, highest: int, bits: int, signed: bool = False) -> Range:
    """The range that integers from `lowest` to `highest` are scaled from, if a file declares their bits.

    This is the range of `bits` bits. If the values fill less than a quarter of it, it is the range of 8, 10, 12 or 14
    bits, the fewest that hold them: files often declare 16 bits for values of 12. These are the depths of detectors; a
    dark image of a set thus has the range of the others more often than with every number of bits. With negative values
    it is the range of the fewest bits of all, at least 8. An image of one value has the range of `bits` bits.
    """
    used = 1 + max(max(highest, 0).bit_length(), (~lowest).bit_length()) if lowest < 0 else highest.bit_length()
    if lowest == highest or used > bits - 2:
        return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    if lowest < 0:
        half = 2.0 ** (max(used, 8) - 1)
        return -half, half - 1
    return 0.0, 2.0 ** max(used + used % 2, 8) - 1


def _integer_range(lowest: int, highest: int, bits: int) -> Range:
    if lowest < 0:
        return lowest, highest
    return declared_range(lowest, highest, bits) if highest < 2**_BITS else (0.0, highest)


def _float_range(lowest: float, highest: float, bits: int) -> Range:
    for begin, end in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        if begin <= lowest and highest <= end:
            return begin, end
    if lowest >= 0:
        return _integer_range(math.floor(lowest), math.ceil(highest), bits) if highest < 2**_BITS else (0.0, highest)
    if lowest >= -_XRV and highest <= _XRV:
        return -_XRV, _XRV
    return lowest, highest
