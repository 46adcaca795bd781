"""Reading a file with a bound on the bytes and the calls: for readers that trust the lengths in a file."""

import io
import os
import zlib
from typing import BinaryIO

from prior_fast.radiology.image_file import UnreadableImage

_PIECE = 1 << 20


class BoundedFile(io.RawIOBase):
    """A file of which at most so many bytes are read, in so many calls.

    Args:
        most_bytes, most_calls: a reader that wants more is ended by `UnreadableImage`.
        what: what is read, for the message.
    """

    def __init__(self, file: BinaryIO, most_bytes: int, most_calls: int, what: str) -> None:
        self._file, self._bytes, self._calls, self._what = file, most_bytes, most_calls, what
        place = file.tell()
        self._size = file.seek(0, os.SEEK_END)
        file.seek(place)

    def read(self, size: int = -1) -> bytes:
        """As in other files; a length beyond the end of the file allocates nothing."""
        there = max(0, self._size - self._file.tell())
        wanted = there if size < 0 else min(size, there)
        self._bytes, self._calls = self._bytes - wanted, self._calls - 1
        if self._bytes < 0:
            raise UnreadableImage(f"{self._what} need more bytes than are read of it ({size})")
        if self._calls < 0:
            raise UnreadableImage(f"{self._what} have too many parts")
        return self._file.read(wanted)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """As in other files."""
        return self._file.seek(place, whence)

    def tell(self) -> int:
        """As in other files."""
        return self._file.tell()


def inflate(file: BinaryIO, most_bytes: int) -> io.BytesIO:
    """The rest of a file, inflated (RFC 1951, without header).

    Raises:
        UnreadableImage: there are more than `most_bytes`, or the data end too early.
        zlib.error: the data are broken.
    """
    inflated, inflater = io.BytesIO(), zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof:
        data = inflater.unconsumed_tail or file.read(_PIECE)
        # Without more data, the inflater may still hold a part of the result.
        piece = inflater.decompress(data, _PIECE)
        if not data and not piece:
            raise UnreadableImage("the deflated data end too early")
        inflated.write(piece)
        if inflated.tell() > most_bytes:
            raise UnreadableImage(f"the deflated data need more than {most_bytes} bytes")
    inflated.seek(0)
    return inflated
