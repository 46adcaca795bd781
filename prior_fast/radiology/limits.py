"""How large an image from outside may become in memory: one limit for all readers, checked before they decode."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from PIL import Image

from prior_fast.errors import UsageError
from prior_fast.radiology.image_file import UnreadableImage

# The largest real X-rays, mammograms among them, have about 30 million pixels. At this limit the decoding of one file
# stays below 1 GB.
MAX_PIXELS = 64_000_000
# A decoder may hold so many bytes for each pixel at the limit. Images with more for a pixel may have fewer pixels.
BYTES_PER_PIXEL = 4
_OPTION = "(the limit that --max-image-pixels sets)"
_FACTORS = {"": 1, "K": 10**3, "M": 10**6}
_limit: ContextVar[int] = ContextVar("pixel limit", default=MAX_PIXELS)


def pixel_limit() -> int:
    """The largest number of pixels that an image may have here."""
    return _limit.get()


@contextmanager
def limited_pixels(pixels: int) -> Iterator[None]:
    """Within this context all readers refuse images of more pixels. It does not reach other threads and processes."""
    token = _limit.set(pixels)
    try:
        yield
    finally:
        _limit.reset(token)


def parse_pixels(text: str) -> int:
    """The number of pixels that `--max-image-pixels` gives: digits, and K or M for thousands or millions.

    Raises:
        UsageError: it is no such number, is 0, or is more than Pillow decodes.
    """
    found = re.fullmatch(r"([0-9]{1,12})([KM]?)", text.strip().upper())
    pixels = int(found[1]) * _FACTORS[found[2]] if found else 0
    most = _pillows_limit()
    if not 1 <= pixels <= most:
        raise UsageError(
            f"--max-image-pixels must be a number from 1 to {most}, such as 64000000 or 64M, not {text!r}; "
            "save larger images in a smaller size"
        )
    return pixels


def check_pixels(width: int, height: int, sample_bytes: float = 1) -> None:
    """Refuse an image with no pixel, or with more pixels or decoded bytes than the limit permits.

    Args:
        sample_bytes: the bytes that a decoder holds for each pixel, in all samples.

    Raises:
        UnreadableImage: the size is out of bounds.
    """
    if width < 1 or height < 1:
        raise UnreadableImage(f"the size is {width}x{height}")
    if width * height > _pillows_limit():
        raise UnreadableImage(f"{width}x{height} pixels are more than {_pillows_limit()}")
    if width * height > pixel_limit():
        raise UnreadableImage(f"{width}x{height} pixels are more than {pixel_limit()} {_OPTION}")
    check_bytes(width * height * sample_bytes, f"{width}x{height} pixels")


def check_bytes(count: float, what: str) -> None:
    """Refuse what needs more bytes than the limit permits.

    Args:
        what: what has so many bytes, for the message.

    Raises:
        UnreadableImage: they are too many.
    """
    if count > (limit := byte_limit()):
        raise UnreadableImage(f"{what} need {count:.0f} bytes, more than {limit} {_OPTION}")


def byte_limit() -> int:
    """The largest number of bytes that decoded data may have here. A lower limit of pixels does not reduce it."""
    return BYTES_PER_PIXEL * max(MAX_PIXELS, pixel_limit())


def _pillows_limit() -> int:
    """Pillow refuses more than twice its setting, and warns of more than the setting."""
    return 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS)
