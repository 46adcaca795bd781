"""Opening an image file: its first bytes, and the one error for all that can go wrong."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import UnidentifiedImageError

UNKNOWN_FORMAT = "no image in a known format"
_LONGEST_REASON = 200
# Readers keep metadata in memory, and some of them the whole file. No X-ray is as large without compression.
LARGEST_FILE = 320_000_000
# A DICOM file has a marker after a preamble of 128 bytes (PS3.10, 7.1).
_PREAMBLE, _MARKER = 128, b"DICM"
# A DICOM data set without them begins with an element of group 0002 or 0008, in either order of bytes.
_FIRST_GROUPS = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")


class UnreadableImage(ValueError):
    """An image file can't be decoded completely. The message is one line without the path."""

    def __init__(self, reason: str) -> None:
        # Reasons may quote the file.
        line = " ".join(reason.split())
        super().__init__("".join(letter if letter.isprintable() else "?" for letter in line))


@contextmanager
def open_image(path: Path) -> Iterator[tuple[BinaryIO, bytes]]:
    """The open file and its first 132 bytes. Whatever fails while it is open is raised as `UnreadableImage`.

    Raises:
        UnreadableImage: the file is absent, empty, larger than `LARGEST_FILE`, or the reader failed.
    """
    with refusals(), path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        if size > LARGEST_FILE:
            raise UnreadableImage(f"the file has {size} bytes, more than {LARGEST_FILE}")
        file.seek(0)
        head = file.read(_PREAMBLE + len(_MARKER))
        if not head:
            raise UnreadableImage("the file is empty")
        file.seek(0)
        yield file, head


def has_dicom_marker(head: bytes) -> bool:
    """Whether a file that begins with these 132 bytes is a DICOM file."""
    return head[_PREAMBLE:] == _MARKER


def may_be_dicom(head: bytes) -> bool:
    """Whether a file that begins with these bytes may be a DICOM data set without preamble."""
    return head.startswith(_FIRST_GROUPS)


@contextmanager
def refusals() -> Iterator[None]:
    """Raise what fails inside as `UnreadableImage`, and show no warnings."""
    try:
        with warnings.catch_warnings():
            # Decoders warn of large images and unusual metadata. Only failures to decode matter here; they are raised.
            warnings.simplefilter("ignore")
            yield
    except UnreadableImage:
        raise
    except MemoryError as error:
        raise UnreadableImage("it needs more memory than there is") from error
    except FileNotFoundError as error:
        raise UnreadableImage("there is no such file") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage(UNKNOWN_FORMAT) from error
    except Exception as error:  # decoders raise many types on broken data
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImage(reason[:_LONGEST_REASON] or type(error).__name__) from error
