"""Decoding X-rays and masks to the size that the model sees."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from prior_fast.data.prepare.records import IMAGE_SIZE

_SIZE = (IMAGE_SIZE, IMAGE_SIZE)


class UnreadableImage(ValueError):
    """An image file that can't be decoded to its end; the message is one line without the path."""


def read_xray(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an X-ray fully, convert it to 8-bit gray and resize it, ignoring its aspect ratio.

    The resize is bilinear with antialiasing (Pillow's BILINEAR). 16-bit gray is scaled by 255/65535.

    Returns:
        uint8 [224, 224] and the (width, height) of the file's image in pixels.

    Raises:
        UnreadableImage: the file is absent, empty, cut off or no image.
    """
    image = _to_gray(_decode(path))
    return np.asarray(image.resize(_SIZE, Image.Resampling.BILINEAR)), image.size


def read_mask(path: Path) -> np.ndarray:
    """Decode an 8-bit mask (set where above 127) and resize it: a pixel is set when half of its area or more is.

    Returns:
        bool [224, 224].

    Raises:
        UnreadableImage: the file is absent, empty, cut off or no image.
    """
    mask = np.asarray(_to_gray(_decode(path))) > 127
    shares = Image.fromarray(mask.astype(np.float32)).resize(_SIZE, Image.Resampling.BOX)
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


def _decode(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images and odd metadata; here an image is decoded or it is not.
            warnings.simplefilter("ignore")
            if path.stat().st_size == 0:
                raise UnreadableImage("the file is empty")
            with Image.open(path) as image:
                image.load()
                return image
    except (UnreadableImage, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UnreadableImage("there is no such file") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage("no image in a known format") from error
    except Exception as error:  # Pillow's decoders raise many types on broken data
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImage(" ".join(reason.split()) or type(error).__name__) from error


def _to_gray(image: Image.Image) -> Image.Image:
    if image.mode == "L":
        return image
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64).clip(0, 65535)
        return Image.fromarray((values * (255 / 65535) + 0.5).astype(np.uint8))
    return image.convert("L")
