"""Reading X-ray files: decoded fully, in 8-bit gray, at the model's input size."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

IMAGE_SIZE = 224
# "exact" decodes at full size; "fast" reduces JPEGs while it decodes them.
EXACT, FAST = DECODES = ("exact", "fast")
_SIZE = (IMAGE_SIZE, IMAGE_SIZE)
# A JPEG decoded with "fast" keeps at least this many times the target's width and height, so that the resize averages.
_FAST_MARGIN = 2
_Box = tuple[float, float, float, float]


class UnreadableImage(ValueError):
    """An image file can't be decoded completely. The message is one line without the path."""


def read_xray(path: Path, decode: str = EXACT) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an X-ray fully, convert it to 8-bit gray and resize it, ignoring its aspect ratio.

    The resize is bilinear with antialiasing (Pillow's BILINEAR). 16-bit gray is scaled by 255/65535.

    Args:
        decode: "exact" or "fast". With "fast" the decoder reduces a JPEG of at least 896x896 pixels by 2, 4 or 8, to at
            least 448x448 pixels, before the resize. Other files are read as with "exact".

    Returns:
        uint8 [224, 224] and the (width, height) of the file's image in pixels.

    Raises:
        UnreadableImage: the file is absent, empty, truncated or not an image.
    """
    image, size, box = decode_file(path, fast=decode == FAST)
    return np.asarray(to_gray(image).resize(_SIZE, Image.Resampling.BILINEAR, box)), size


def to_square(image: Image.Image) -> np.ndarray:
    """Convert and resize a decoded image as `read_xray` does: uint8 [224, 224]."""
    return np.asarray(to_gray(image).resize(_SIZE, Image.Resampling.BILINEAR))


def decode_file(path: Path, fast: bool = False) -> tuple[Image.Image, tuple[int, int], _Box]:
    """The decoded image, the (width, height) of the file's image, and the box of the decoded image that it fills.

    The box is the whole decoded image, but if `fast` reduced it, the last row and column may be filled only partly.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images and unusual metadata. Only failures to decode matter here; they are raised.
            warnings.simplefilter("ignore")
            if path.stat().st_size == 0:
                raise UnreadableImage("the file is empty")
            with Image.open(path) as image:
                size, reduced = image.size, None
                if fast and isinstance(image, JpegImageFile):
                    reduced = image.draft(None, (_FAST_MARGIN * IMAGE_SIZE, _FAST_MARGIN * IMAGE_SIZE))
                image.load()
                return image, size, reduced[1] if reduced else (0, 0, *image.size)
    except (UnreadableImage, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UnreadableImage("there is no such file") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage("no image in a known format") from error
    except Exception as error:  # Pillow's decoders raise many types on broken data
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImage(" ".join(reason.split()) or type(error).__name__) from error


def to_gray(image: Image.Image) -> Image.Image:
    """The image in 8-bit gray; 16-bit gray is scaled by 255/65535."""
    if image.mode == "L":
        return image
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64).clip(0, 65535)
        return Image.fromarray((values * (255 / 65535) + 0.5).astype(np.uint8))
    return image.convert("L")
