"""Damage of a JPEG file that a decoder fills in: a scan cut off before the end mark, or overwritten."""

import numpy as np
from PIL import Image

from prior_fast.radiology.jpeg_markers import Jpeg, damage_in_markers
from prior_fast.radiology.jpeg_walk import find_damage

# Half of a disk's sector. The codes of an even area repeat too, but seldom with a period of one byte.
_RUN = 256
_PIECE = 4096
# libjpeg's level where there are no data.
_FILLED = 128


def damage(data: bytes, jpeg: Jpeg) -> str | None:
    """What is certainly wrong with the compressed data; None if nothing is found before decoding.

    Found are markers where none may be and, in files without progression, long runs of one byte that are no valid
    codes. Codes that are valid but wrong are not found: the picture is then wrong from there on.

    Args:
        jpeg: the markers of `data`.
    """
    reason = damage_in_markers(jpeg)
    if reason is None and jpeg.sequential and _has_run(data, jpeg):
        return find_damage(data, jpeg)
    return reason


def damage_after(image: Image.Image, data: bytes, jpeg: Jpeg) -> str | None:
    """What is wrong with the compressed data of a decoded file whose last pixels look filled in.

    Args:
        image: as it was decoded, not yet turned.
    """
    last = image.crop((max(0, image.width - 1), max(0, image.height - 1), image.width, image.height)).convert("L")
    if not jpeg.sequential or last.getpixel((0, 0)) != _FILLED:
        return None
    return find_damage(data, jpeg)


def _has_run(data: bytes, jpeg: Jpeg) -> bool:
    """Whether one byte fills an aligned block of the scan, which every run of twice its length does."""
    scan = np.frombuffer(data, np.uint8)[jpeg.scans[0].begin : jpeg.scans[0].end]
    blocks = scan[: len(scan) // _RUN * _RUN].reshape(-1, _RUN)
    # In pieces: the comparison needs as much memory as its input.
    pieces = (blocks[begin : begin + _PIECE] for begin in range(0, len(blocks), _PIECE))
    return any(bool((piece == piece[:, :1]).all(axis=1).any()) for piece in pieces)
