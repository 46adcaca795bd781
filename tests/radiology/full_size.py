"""What tests of the reader share: the gray image of a file, and the reason why a file is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prior_fast.radiology.xray import UnreadableImage, decode_file, read_xray


def square(gray: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(gray).resize((224, 224), Image.Resampling.BILINEAR))


def gray_of(path: Path) -> np.ndarray:
    """The full-size gray image, after a check that both ways to decode give it."""
    gray, size, box = decode_file(path)
    assert gray.mode == "L" and size == gray.size and box == (0, 0, *size)
    for decode in ("exact", "fast"):
        pixels, found = read_xray(path, decode)
        assert found == size and np.array_equal(pixels, square(np.asarray(gray)))
    return np.asarray(gray)


def refused(path: Path) -> str:
    messages = set()
    for decode in ("exact", "fast"):
        with pytest.raises(UnreadableImage) as caught:
            read_xray(path, decode)
        messages.add(str(caught.value))
    (message,) = messages
    assert "\n" not in message and str(path) not in message
    return message
