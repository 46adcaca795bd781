"""What is checked in a file before Pillow opens it: sizes that Pillow allocates unseen, and parts by the million."""

import os
from typing import BinaryIO

from prior_fast.radiology.image_file import UnreadableImage
from prior_fast.radiology.limits import check_bytes, check_pixels
from prior_fast.radiology.tiff_directories import check_directories, is_tiff

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_2000_BOX = b"\0\0\0\x0cjP  \r\n\x87\n"
_CODESTREAM = b"\xff\x4f\xff\x51"
# Decoders keep each part of the metadata as an object. Real files have some dozens.
_MOST_PARTS = 10_000
# OpenJPEG holds 32 bits for each value, and a description of each tile.
_OPENJPEG_BYTES, _MOST_TILES = 4, 20_000
_BMP_HEADER, _BMP_PLAIN = 40, (0, 3, 6)


def check_header(file: BinaryIO, head: bytes) -> None:
    """Refuse a file that would need too much memory or time to open. Leaves `file` at its begin.

    Other faults are left to the decoder.

    Args:
        head: the first 132 bytes of the file.

    Raises:
        UnreadableImage: the file is too large in some way.
    """
    if head.startswith(_PNG):
        _check_png(file)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        _check_webp(head)
    elif head[:2] == b"BM":
        _check_bmp(head)
    elif is_tiff(head):
        check_directories(file)
    elif head.startswith((_JPEG_2000_BOX, _CODESTREAM)):
        file.seek(_find_codestream(file))
        check_codestream(file.read(60))
    file.seek(0)


def check_codestream(data: bytes) -> None:
    """Refuse a JPEG 2000 codestream whose header declares too large an image or too many tiles.

    Raises:
        UnreadableImage: the size is out of bounds, or the data do not begin with a codestream's header.
    """
    if not data.startswith(_CODESTREAM) or len(data) < 42:
        raise UnreadableImage("broken JPEG 2000 data: they have no header")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = (
        int.from_bytes(data[at : at + 4], "big") for at in range(8, 40, 4)
    )
    components = int.from_bytes(data[40:42], "big")
    check_pixels(right - left, bottom - top, _OPENJPEG_BYTES * components)
    if tile_width and tile_height:
        tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
        if tiles > _MOST_TILES:
            raise UnreadableImage(f"JPEG 2000 data of {tiles} tiles")


def _find_codestream(file: BinaryIO) -> int:
    """Where the codestream begins: at the begin of the file, or in the box jp2c."""
    size, place = file.seek(0, os.SEEK_END), 0
    for _ in range(_MOST_PARTS):
        file.seek(place)
        box = file.read(16)
        if box.startswith(_CODESTREAM):
            return place
        length, head = int.from_bytes(box[:4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(box[8:16], "big"), 16
        if box[4:8] == b"jp2c":
            return place + head
        if length < head or place + length >= size:
            break
        place += length
    raise UnreadableImage("a broken JPEG 2000 file: it has no image")


def _check_png(file: BinaryIO) -> None:
    """Count the chunks other than IDAT."""
    size, place, others = file.seek(0, os.SEEK_END), len(_PNG), 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(8)
        others += head[4:] != b"IDAT"
        if others > _MOST_PARTS:
            raise UnreadableImage(f"a PNG file of more than {_MOST_PARTS} parts")
        place += 12 + int.from_bytes(head[:4], "big")


def _check_webp(head: bytes) -> None:
    """Check the size of the canvas, of which libwebp allocates two when a file is opened."""
    kind = head[12:16]
    if kind == b"VP8X":
        sides = [1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27)]
    elif kind == b"VP8L":
        both = int.from_bytes(head[21:25], "little")
        sides = [1 + (both & 0x3FFF), 1 + (both >> 14 & 0x3FFF)]
    else:
        sides = [int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28)]
    check_pixels(sides[0], sides[1])
    check_bytes(sides[0] * sides[1] * 8, "two canvases of a WebP file of this size")


def _check_bmp(head: bytes) -> None:
    """Refuse run-length codes, a few bytes of which can skip any number of pixels."""
    compression = int.from_bytes(head[30:34], "little")
    if int.from_bytes(head[14:18], "little") >= _BMP_HEADER and compression not in _BMP_PLAIN:
        raise UnreadableImage("a BMP file with compression, which is not read; save it as PNG")
