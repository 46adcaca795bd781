"""The directories of a TIFF file: how many there are, and whether their entries have possible sizes (TIFF 6.0)."""

import os
import struct
from typing import BinaryIO

from prior_fast.radiology.image_file import UnreadableImage
from prior_fast.radiology.limits import check_pixels

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Tags of which an image has one value for each strip or tile, and other tags that become a list of numbers.
_PARTS = (273, 279, 324, 325)
_MOST_PARTS, _MOST_VALUES, _MOST_BYTES = 200_000, 200_000, 8_000_000
_TEXTS = (1, 2, 7)  # types that stay bytes
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_MOST_DIRECTORIES, _MOST_TAGS = 1000, 1 << 16
# Tag, type, number of values, value or its place.
Entry = tuple[int, int, int, int]


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a TIFF file."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_directories(file: BinaryIO) -> None:
    """Refuse a file of several images, or with lists of values that no X-ray needs.

    Raises:
        UnreadableImage: there are several images, or a list or tile is too long.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    order, big = "<" if head[:2] == b"II" else ">", 43 in head[2:4]
    (place,) = struct.unpack(order + "Q", head[8:16]) if big else struct.unpack(order + "I", head[4:8])
    seen: set[int] = set()
    while place and place not in seen and place < size:
        seen.add(place)
        entries, following = _read(file, place, order, big)
        if len(seen) == 1:
            _check_entries(entries)
        elif following is None or len(seen) > _MOST_DIRECTORIES:
            raise UnreadableImage("several frames")
        place = following or 0
    if len(seen) > 1:
        raise UnreadableImage(f"{len(seen)} frames")


def _read(file: BinaryIO, place: int, order: str, big: bool) -> tuple[list[Entry], int | None]:
    """The entries of a directory, and the place of the next one; None if the directory is cut off."""
    file.seek(place)
    one, long = (f"{order}HHQQ", "Q") if big else (f"{order}HHII", "I")
    head = file.read(8 if big else 2)
    if len(head) < (8 if big else 2):
        return [], None
    (count,) = struct.unpack(order + ("Q" if big else "H"), head)
    length = struct.calcsize(one)
    table = file.read(min(count, _MOST_TAGS) * length)
    entries = [struct.unpack_from(one, table, at) for at in range(0, len(table) - length + 1, length)]
    tail = file.read(struct.calcsize(long))
    whole = len(entries) == count and len(tail) == struct.calcsize(long)
    return entries, struct.unpack(order + long, tail)[0] if whole else None


def _check_entries(entries: list[Entry]) -> None:
    total = 0
    for tag, kind, count, _ in entries:
        most = _MOST_PARTS if tag in _PARTS else _MOST_BYTES if kind in _TEXTS else _MOST_VALUES
        total += count * _TYPE_BYTES.get(kind, 0)
        if count > most or total > 4 * _MOST_BYTES:
            raise UnreadableImage(f"a TIFF file whose tag {tag} has {count} values")
    tile = {tag: value for tag, kind, count, value in entries if tag in (_TILE_WIDTH, _TILE_HEIGHT) and count == 1}
    if len(tile) == 2:
        check_pixels(tile[_TILE_WIDTH], tile[_TILE_HEIGHT])
