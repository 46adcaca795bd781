"""Decoding DICOM X-rays to the model's input size."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit

from prior_fast.radiology.dicom_dataset import NO_DICOM, check_frame, read_dataset
from prior_fast.radiology.dicom_levels import presented
from prior_fast.radiology.image_file import UnreadableImage, open_image
from prior_fast.radiology.limits import check_pixels
from prior_fast.radiology.square import resized

_LONGEST_REASON = 200
_PREFERRED = {JPEGBaseline8Bit: "pillow", JPEG2000Lossless: "pylibjpeg", JPEG2000: "pylibjpeg"}
_TABLE_BITS, _WIDE_BYTES = 16, 40


def read_dicom(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode a gray DICOM image to 8 bits and resize it, ignoring its aspect ratio, as `xray.read_xray` does.

    Gray levels are those of `dicom_levels.presented`. A file without a preamble is read if it has pixels.

    Returns:
        uint8 [224, 224] and the (width, height) of the file's image in pixels.

    Raises:
        UnreadableImage: the file is absent, empty, truncated, not DICOM, in color, has several frames, or needs a
            decoder that is not installed.
    """
    with open_image(path) as (file, head):
        gray = decode_dicom(file, head)
    return resized(gray), gray.size


def decode_dicom(file: BinaryIO, head: bytes) -> Image.Image:
    """The file's image in 8-bit gray.

    Args:
        head: the first 132 bytes of the file.

    Raises:
        UnreadableImage: as `read_dicom`.
    """
    try:
        dataset = read_dataset(file, head, _check)
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            check_frame(dataset)
            _choose_decoder(dataset)
        stored = dataset.pixel_array
        # The array is a copy.
        del dataset.PixelData
        if stored.ndim != 2:
            raise UnreadableImage(f"{len(stored)} frames")
        return Image.fromarray(presented(stored, dataset))
    except (UnreadableImage, MemoryError):
        raise
    except InvalidDicomError as error:
        raise UnreadableImage(NO_DICOM) from error
    except Exception as error:  # pydicom and the decoders behind it raise many types on broken data
        reason = str(error)[:_LONGEST_REASON] or type(error).__name__
        raise UnreadableImage(f"can't be decoded: {reason}") from error


def _choose_decoder(dataset: Dataset) -> None:
    """Prefer other decoders to GDCM, which ends the process on some damaged data."""
    syntax = dataset.file_meta.TransferSyntaxUID
    preferred = _PREFERRED.get(syntax)
    if preferred in get_decoder(syntax).available_plugins:
        dataset.pixel_array_options(decoding_plugin=preferred)


def _check(dataset: Dataset) -> None:
    """Refuse what is no gray image, has several frames, is too large, or has no decoder here."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnreadableImage(f"{frames} frames")
    kind = str(dataset.get("PhotometricInterpretation", "absent"))
    if kind not in ("MONOCHROME1", "MONOCHROME2") or dataset.get("SamplesPerPixel", 1) != 1:
        raise UnreadableImage(f"no gray image (PhotometricInterpretation {kind})")
    bits = int(dataset.BitsAllocated)
    # Values of more than 16 bits become several arrays of 64 bits.
    check_pixels(int(dataset.Columns), int(dataset.Rows), -(-bits // 8) if bits <= _TABLE_BITS else _WIDE_BYTES)
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableImage(f"pydicom has no decoder for the transfer syntax {syntax.name} ({syntax})") from error
    if not decoder.is_available:
        raise UnreadableImage(f"no decoder for {syntax.name} ({syntax}) is installed: pip install 'prior-fast[dicom]'")
