"""Small files that claim to be large, or become large when they are decoded."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from tests.torture.images.seeds import DEEP, PIXELS, compressed_dicom, dicom, rle_frame, seeds

_PNG = b"\x89PNG\r\n\x1a\n"
_HUGE = 65_500


def bombs() -> dict[str, bytes]:
    """Files by what is too large in them. The reader refuses each."""
    files = seeds()
    run = b"\x81\0" * 600_000  # 128 zeros each
    return {
        "JPEG header": _jpeg_of(files["jpeg"], _HUGE, _HUGE),
        "JPEG parts": b"\xff\xd8" + b"\xff\xe1\0\2" * 100_000 + files["jpeg"][2:],
        "JPEG scans": _repeated_scans(files["jpeg, progressive color"]),
        "PNG header": _png(_HUGE, _HUGE, 16, b""),
        "PNG pixels": _png(9000, 9000, 8, zlib.compress(bytes(9000 * 9001), 1)),
        "PNG text": _png(40, 40, 8, zlib.compress(bytes(40 * 41)), _chunk(b"zTXt", _text(1 << 24))),
        "PNG profile": _png(40, 40, 8, zlib.compress(bytes(20)), _chunk(b"iCCP", _text(1 << 24))),
        "PNG parts": _png(40, 40, 8, zlib.compress(bytes(40 * 41)), _chunk(b"prIv", b"") * 20_000),
        "TIFF header": _tiff_with(files["tiff, 16 bits"], {256: _HUGE, 257: _HUGE}),
        "TIFF strips": _tiff_with(files["tiff, 16 bits"], {}, {273: 50_000_000}),
        "TIFF tile": _tiff_tile(),
        "TIFF directories": _tiff_chain(5000),
        "GIF screen": _patched(files["gif"], 6, struct.pack("<HH", _HUGE, _HUGE)),
        "WebP canvas": _webp(16_384, 16_384),
        "BMP header": _patched(files["bmp"], 18, struct.pack("<II", _HUGE, _HUGE)),
        "BMP runs": _patched(files["bmp"], 30, struct.pack("<I", 1)),
        "JPEG 2000 header": _codestream(files["jpeg 2000, codestream"], _HUGE, _HUGE),
        "JPEG 2000 in its box": _codestream(files["jpeg 2000"], _HUGE, _HUGE),
        "JPEG 2000 tiles": _codestream(files["jpeg 2000, codestream"], 7000, 7000, tile=10),
        "PGM header": b"P5 65500 65500 255\n" + bytes(100),
        "DICOM header": dicom(PIXELS, Rows=_HUGE, Columns=_HUGE),
        "DICOM frames": dicom(PIXELS, NumberOfFrames=1_000_000),
        "DICOM bits": dicom(DEEP, Rows=6000, Columns=6000, BitsAllocated=64, BitsStored=64, HighBit=63),
        "DICOM RLE": compressed_dicom(RLELossless, rle_frame([run])),
        "DICOM RLE, header": compressed_dicom(RLELossless, rle_frame([run] * 15), Rows=_HUGE, Columns=_HUGE),
        "DICOM JPEG": compressed_dicom(JPEGBaseline8Bit, _jpeg_of(files["jpeg"], _HUGE, _HUGE)),
        "DICOM JPEG 2000": compressed_dicom(
            JPEG2000Lossless, _codestream(files["jpeg 2000, codestream"], _HUGE, _HUGE)
        ),
        "DICOM deflated": _deflated(400_000_000),
        "DICOM element": _with_element(b"\x09\0\x10\0UN\0\0" + struct.pack("<I", 3_000_000_000)),
        "DICOM items": _with_element(
            b"\x09\0\x10\0SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\0\0\0\0" * 200_000 + b"\xfe\xff\xdd\xe0\0\0\0\0"
        ),
    }


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int, data: bytes, more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return _PNG + _chunk(b"IHDR", header) + more + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _text(size: int) -> bytes:
    return b"name\0\0" + zlib.compress(bytes(size), 9)


def _jpeg_of(data: bytes, width: int, height: int) -> bytes:
    return _patched(data, data.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


def _repeated_scans(data: bytes) -> bytes:
    """The last scan 2000 times: each costs a pass over all pixels."""
    begin = data.rindex(b"\xff\xda")
    return data[:begin] + data[begin:-2] * 2000 + data[-2:]


def _patched(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def _codestream(data: bytes, width: int, height: int, tile: int = 0) -> bytes:
    begin = data.index(b"\xff\x4f\xff\x51") + 8
    data = _patched(data, begin, struct.pack(">II", width, height))
    side = tile or width
    return _patched(data, begin + 16, struct.pack(">II", side, side))


def _webp(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    return b"RIFF" + struct.pack("<I", len(body) + 100) + body + bytes(100)


def _tiff_with(data: bytes, values: dict[int, int], counts: dict[int, int] | None = None) -> bytes:
    """A little-endian TIFF file with other values, or other numbers of values, of some tags."""
    place = struct.unpack("<I", data[4:8])[0]
    for number in range(struct.unpack("<H", data[place : place + 2])[0]):
        entry = place + 2 + 12 * number
        tag = struct.unpack("<H", data[entry : entry + 2])[0]
        if tag in values:
            data = _patched(data, entry + 2, struct.pack("<HII", 4, 1, values[tag]))
        if counts and tag in counts:
            data = _patched(data, entry + 4, struct.pack("<I", counts[tag]))
    return data


def _directory(values: dict[int, int], following: int) -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    return struct.pack("<H", len(values)) + entries + struct.pack("<I", following)


def _tiff_tile() -> bytes:
    """A small image in one tile of 4 GB."""
    values = {256: 40, 257: 40, 258: 8, 259: 5, 262: 1, 277: 1, 322: _HUGE, 323: _HUGE, 324: 8, 325: 100}
    return b"II*\0" + struct.pack("<I", 200) + bytes(192) + _directory(values, 0)


def _tiff_chain(count: int) -> bytes:
    values = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: 1}
    size = len(_directory(values, 0))
    chain = b"".join(_directory(values, 8 + size * (number + 1)) for number in range(count))
    return b"II*\0" + struct.pack("<I", 8) + chain


def _deflated(size: int) -> bytes:
    """A deflated file whose pixels are `size` zeros, which take a few hundred times less."""
    dataset = Dataset()
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.BitsStored = 48, 72, 8, 8
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.HighBit = 1, 0, 7
    dataset.PhotometricInterpretation = "MONOCHROME2"
    plain = BytesIO()
    dcmwrite(plain, dataset, implicit_vr=False, little_endian=True)
    body = plain.getvalue() + b"\xe0\x7f\x10\0OW\0\0" + struct.pack("<I", size)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = packer.compress(body)
    zeros = bytes(1 << 20)
    data += b"".join(packer.compress(zeros) for _ in range(size >> 20)) + packer.flush()
    whole = dicom(PIXELS, syntax=DeflatedExplicitVRLittleEndian)
    length = struct.unpack("<I", whole[140:144])[0]
    return whole[: 144 + length] + data


def _with_element(element: bytes) -> bytes:
    """A DICOM file with an element before its pixels."""
    whole = dicom(PIXELS)
    place = whole.index(b"\x28\0\x02\0US")
    return whole[:place] + element + whole[place:]


def large_images() -> dict[str, Image.Image]:
    """Images of a size close to the default limit, in the kinds whose conversion needs the most memory."""
    gray = np.tile(np.arange(8000, dtype=np.uint16), (7900, 1))
    return {
        "8 bits": Image.fromarray((gray >> 5).astype(np.uint8)),
        "16 bits": Image.fromarray(gray),
        "floats": Image.fromarray(gray.astype(np.float32)),
    }
