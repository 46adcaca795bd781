"""Frames of DICOM's run-length code: whether they are as long as they should be, before they are decoded (PS3.5, G)."""

import struct
from itertools import pairwise

from prior_fast.radiology.image_file import UnreadableImage

_MOST_SEGMENTS = 15
_NOTHING = 128
# Some encoders pad segments, or code more than the image.
_SPARE = 1024


def check_rle(frame: bytes, pixels: int) -> None:
    """Refuse a frame with a segment that gives many more bytes than the image has pixels.

    Args:
        frame: the header of 64 bytes, and the segments.

    Raises:
        UnreadableImage: a segment is too long.
    """
    if len(frame) < 64:
        raise UnreadableImage("run-length codes without a header")
    count, *offsets = struct.unpack("<16L", frame[:64])
    places = [*offsets[: min(count, _MOST_SEGMENTS)], len(frame)]
    for begin, end in pairwise(places):
        # A literal of one byte needs two.
        if end - begin > 2 * pixels + _SPARE:
            raise UnreadableImage(f"run-length codes of {end - begin} bytes for {pixels} pixels")
        # A run of two bytes gives 128 at most.
        if 64 * (end - begin) > 4 * pixels and _decoded_bytes(frame[begin:end], pixels + _SPARE) > pixels + _SPARE:
            raise UnreadableImage(f"run-length codes give more than {pixels} pixels")


def _decoded_bytes(segment: bytes, most: int) -> int:
    """The number of bytes that a segment gives, counted until it is more than `most`."""
    place, size, total = 0, len(segment), 0
    while place < size and total <= most:
        code = segment[place]
        if code < _NOTHING:
            total += code + 1
            place += code + 2
        elif code > _NOTHING:
            total += 257 - code
            place += 2
        else:
            place += 1
    return total
