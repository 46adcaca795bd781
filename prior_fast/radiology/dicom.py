"""Decoding DICOM X-rays to the model's input size."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from prior_fast.radiology.dicom_levels import presented
from prior_fast.radiology.image_file import UnreadableImage, check_pixels, has_dicom_marker, may_be_dicom, open_image
from prior_fast.radiology.square import resized

_NO_DICOM = "no DICOM file"
_LONGEST_REASON = 200


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
        dataset = _read(file, head)
        _check(dataset)
        stored = dataset.pixel_array
        if stored.ndim != 2:
            raise UnreadableImage(f"{len(stored)} frames")
        return Image.fromarray(presented(stored, dataset))
    except (UnreadableImage, MemoryError):
        raise
    except InvalidDicomError as error:
        raise UnreadableImage(_NO_DICOM) from error
    except Exception as error:  # pydicom and the decoders behind it raise many types on broken data
        reason = str(error)[:_LONGEST_REASON] or type(error).__name__
        raise UnreadableImage(f"can't be decoded: {reason}") from error


def _read(file: BinaryIO, head: bytes) -> Dataset:
    """The data set, with a transfer syntax also if the file names none."""
    marked = has_dicom_marker(head)
    if not marked and not may_be_dicom(head):
        raise UnreadableImage(_NO_DICOM)
    try:
        dataset = dcmread(file, force=not marked)
    except Exception as error:
        if marked:
            raise
        raise UnreadableImage(_NO_DICOM) from error
    if "PixelData" not in dataset:
        raise UnreadableImage("no pixel data, or cut off in them" if marked else _NO_DICOM)
    if "TransferSyntaxUID" not in dataset.file_meta:
        if dataset["PixelData"].is_undefined_length:
            raise UnreadableImage("the pixels are compressed, and no TransferSyntaxUID says how")
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _check(dataset: Dataset) -> None:
    """Refuse what is no gray image, has several frames, is too large, or has no decoder here."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnreadableImage(f"{frames} frames")
    kind = str(dataset.get("PhotometricInterpretation", "absent"))
    if kind not in ("MONOCHROME1", "MONOCHROME2") or dataset.get("SamplesPerPixel", 1) != 1:
        raise UnreadableImage(f"no gray image (PhotometricInterpretation {kind})")
    check_pixels(int(dataset.Columns), int(dataset.Rows))
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableImage(f"pydicom has no decoder for the transfer syntax {syntax.name} ({syntax})") from error
    if not decoder.is_available:
        raise UnreadableImage(f"no decoder for {syntax.name} ({syntax}) is installed: pip install 'prior-fast[dicom]'")
