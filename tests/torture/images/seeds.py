"""Small images in every format and variant that the reader knows: what mutations begin with."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from tests.prepare.labelled.trees import raw_dicom, xray

PIXELS = xray(4, 48, 72)
COLOR = np.stack([PIXELS, PIXELS[::-1], 255 - PIXELS], axis=-1)
DEEP = PIXELS.astype(np.uint16) * 257


def seeds() -> dict[str, bytes]:
    """Files by the name of their kind."""
    gray, color, deep = Image.fromarray(PIXELS), Image.fromarray(COLOR), Image.fromarray(DEEP)
    files = {
        "jpeg": _saved(gray, "JPEG"),
        "jpeg, progressive color": _saved(color, "JPEG", progressive=True),
        "jpeg, restarts": _saved(gray, "JPEG", restart_marker_blocks=3),
        "png": _saved(gray, "PNG"),
        "png, 16 bits": _saved(deep, "PNG"),
        "png, palette": _saved(color.quantize(200), "PNG"),
        "png, RGB": _saved(color, "PNG"),
        "tiff": _saved(gray, "TIFF"),
        "tiff, 16 bits": _saved(deep, "TIFF"),
        "tiff, LZW": _saved(gray, "TIFF", compression="tiff_lzw"),
        "tiff, Deflate": _saved(deep, "TIFF", compression="tiff_adobe_deflate"),
        "tiff, JPEG": _saved(gray, "TIFF", compression="jpeg"),
        "tiff, floats": _saved(Image.fromarray(PIXELS / np.float32(255)), "TIFF"),
        "tiff, G4": _saved(gray.convert("1"), "TIFF", compression="group4"),
        "gif": _saved(gray, "GIF"),
        "webp": _saved(gray, "WEBP"),
        "webp, lossless": _saved(color, "WEBP", lossless=True),
        "bmp": _saved(gray, "BMP"),
        "jpeg 2000": _saved(gray, "JPEG2000"),
        "jpeg 2000, codestream": _saved(deep, "JPEG2000", no_jp2=True),
        "pgm": _saved(gray, "PPM"),
    }
    jpeg, codestream = files["jpeg"], _saved(gray, "JPEG2000", no_jp2=True)
    files |= {
        "dicom": dicom(PIXELS),
        "dicom, 16 bits": dicom(DEEP),
        "dicom, implicit": dicom(PIXELS, syntax=ImplicitVRLittleEndian),
        "dicom, big-endian": dicom(DEEP, syntax=ExplicitVRBigEndian),
        "dicom, deflated": dicom(PIXELS, syntax=DeflatedExplicitVRLittleEndian),
        "dicom, RLE": compressed_dicom(RLELossless, rle_frame([rle(PIXELS.tobytes())])),
        "dicom, JPEG": compressed_dicom(JPEGBaseline8Bit, jpeg),
        "dicom, JPEG Extended": compressed_dicom(JPEGExtended12Bit, jpeg),
        "dicom, JPEG 2000": compressed_dicom(JPEG2000Lossless, codestream),
    }
    return files


def dicom(pixels: np.ndarray, syntax: UID | None = None, **facts: object) -> bytes:
    """A DICOM file of plain pixels."""
    return _written(lambda path: raw_dicom(path, pixels, **({"syntax": syntax} if syntax else {}), **facts))


def compressed_dicom(syntax: UID, frame: bytes, pixels: np.ndarray = PIXELS, **facts: object) -> bytes:
    """A DICOM file with a header for `pixels` and the compressed `frame`."""

    def write(path: Path) -> None:
        raw_dicom(path, pixels, **facts)
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)

    return _written(write)


def rle_frame(segments: list[bytes]) -> bytes:
    """A frame of DICOM's run-length code, with its header."""
    places = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    return struct.pack("<16L", len(segments), *places, *[0] * (15 - len(segments))) + b"".join(segments)


def rle(values: bytes) -> bytes:
    """A segment without runs."""
    return b"".join(
        bytes([len(part) - 1]) + part for part in (values[at : at + 128] for at in range(0, len(values), 128))
    )


def _saved(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def _written(write: Callable[[Path], object]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()
