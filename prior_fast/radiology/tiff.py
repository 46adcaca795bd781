"""Gray TIFF files whose kind of pixel Pillow does not read, such as 64-bit floats."""

import zlib
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from prior_fast.radiology.gray_levels import gray_levels
from prior_fast.radiology.image_file import UnreadableImage
from prior_fast.radiology.limits import check_pixels
from prior_fast.radiology.pillow_images import turned

_KINDS = {1: "u", 2: "i", 3: "f"}  # of SampleFormat
_PLAIN, _DEFLATE = 1, (8, 32946)  # of Compression
# Tags of the TIFF 6.0 specification.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 259, 262, 274
_STRIPS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PREDICTOR = 273, 277, 278, 279, 317
_TILE_WIDTH, _TILE_ROWS, _TILES, _TILE_BYTES, _SAMPLE_FORMAT = 322, 323, 324, 325, 339


def decode_tiff(file: BinaryIO) -> Image.Image:
    """The image in 8-bit gray, upright, with white as the highest level. The values are scaled by `gray_levels`.

    Integers and floats of 8 to 64 bits are read, plain or compressed with Deflate, in strips or in tiles.

    Raises:
        UnreadableImage: the file is broken, of another kind, or has several images.
    """
    header = file.read(8)
    if header[:4] == b"MM\0+":
        raise UnreadableImage("a big-endian BigTIFF file, which is not read; save it as plain 16-bit gray")
    tags = ImageFileDirectory_v2(header + file.read(8) if header[2] == 43 else header)
    first = tags.next
    file.seek(first)
    tags.load(file)
    # A directory that is cut off leaves the place of the first; a missing tag shows it below.
    if tags.next not in (0, first):
        raise UnreadableImage("several frames")
    try:
        levels = gray_levels(_values(file, tags))
    except KeyError as error:
        raise UnreadableImage(f"a broken TIFF file: it has no tag {error}") from error
    white_is_zero = _number(tags, _PHOTOMETRIC, 1) == 0
    return turned(Image.fromarray(255 - levels if white_is_zero else levels), _number(tags, _ORIENTATION, 1))


def _values(file: BinaryIO, tags: ImageFileDirectory_v2) -> np.ndarray:
    """The pixels [H, W] in the file's type."""
    width, height, compression = _number(tags, _WIDTH), _number(tags, _HEIGHT), _number(tags, _COMPRESSION, _PLAIN)
    dtype = _dtype(tags, compression)
    check_pixels(width, height, dtype.itemsize)
    tiled = _TILES in tags
    rows, columns = (_number(tags, _TILE_ROWS), _number(tags, _TILE_WIDTH)) if tiled else (height, width)
    if not tiled:
        rows = min(height, _number(tags, _STRIP_ROWS, height))
    check_pixels(columns, rows, dtype.itemsize)
    values = np.empty((height, width), dtype)
    offsets, lengths = (_numbers(tags, tag) for tag in ((_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)))
    wanted_parts = -(-height // rows) * -(-width // columns)
    if not wanted_parts == len(offsets) == len(lengths):
        raise UnreadableImage(f"a broken TIFF file: {len(offsets)} parts, wanted {wanted_parts}")
    places = [(top, left) for top in range(0, height, rows) for left in range(0, width, columns)]
    for (top, left), offset, length in zip(places, offsets, lengths):
        here = rows if tiled else min(rows, height - top)
        wanted = here * columns * values.itemsize
        file.seek(offset)
        # Not more than the part can need: the parts of a malicious file may all be the whole file.
        data = file.read(min(length, wanted + wanted // 8 + 64))
        if compression != _PLAIN:
            data = zlib.decompressobj().decompress(data, wanted)
        if len(data) < wanted:
            raise UnreadableImage("image file is truncated")
        part = np.frombuffer(data, values.dtype, here * columns).reshape(here, columns)
        values[top : top + here, left : left + columns] = part[: height - top, : width - left]
    return values


def _dtype(tags: ImageFileDirectory_v2, compression: int) -> np.dtype:
    samples, bits = _number(tags, _SAMPLES, 1), _number(tags, _BITS, 1)
    sample_format, photometric = _number(tags, _SAMPLE_FORMAT, 1), _number(tags, _PHOTOMETRIC, 1)
    kind = _KINDS.get(sample_format, "")
    known = bits in (16, 32, 64) or (bits == 8 and kind != "f")
    plain = compression in (_PLAIN, *_DEFLATE) and _number(tags, _PREDICTOR, 1) == 1
    if not (kind and known and plain and samples == 1 and photometric in (0, 1)):
        raise UnreadableImage(
            f"a TIFF file of a kind that is not read (SamplesPerPixel {samples}, BitsPerSample {bits}, SampleFormat "
            f"{sample_format}, PhotometricInterpretation {photometric}, Compression {compression}); "
            "save it as plain 16-bit gray"
        )
    return np.dtype(f"{'<' if tags.prefix == b'II' else '>'}{kind}{bits // 8}")


def _numbers(tags: ImageFileDirectory_v2, tag: int, default: int | None = None) -> list[int]:
    value: Any = tags[tag] if default is None else tags.get(tag, default)
    return [int(number) for number in value] if isinstance(value, tuple) else [int(value)]


def _number(tags: ImageFileDirectory_v2, tag: int, default: int | None = None) -> int:
    return _numbers(tags, tag, default)[0]
