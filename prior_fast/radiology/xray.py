"""Reading X-ray files: decoded fully, in 8-bit gray, at the model's input size."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from prior_fast.radiology.image_file import (
    UNKNOWN_FORMAT,
    UnreadableImage,
    has_dicom_marker,
    may_be_dicom,
    open_image,
    refusals,
)
from prior_fast.radiology.pillow_images import decode_image, upright_gray
from prior_fast.radiology.square import IMAGE_SIZE as IMAGE_SIZE
from prior_fast.radiology.square import Box, resized
from prior_fast.radiology.tiff import decode_tiff
from prior_fast.radiology.tiff_directories import is_tiff

# "exact" decodes at full size; "fast" reduces JPEGs while it decodes them.
EXACT, FAST = DECODES = ("exact", "fast")


def read_xray(path: Path, decode: str = EXACT) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an X-ray fully, convert it to 8-bit gray and resize it, ignoring its aspect ratio.

    The content decides the format, not the name: JPEG, PNG, TIFF, DICOM, WebP, JPEG 2000, BMP, GIF or PPM. Colors
    become luma. Gray of more than 8 bits is scaled as `gray_levels.gray_levels` says, and that of DICOM files as
    `dicom_levels.presented` says. The image is turned as its EXIF orientation says. The resize is bilinear with
    antialiasing (Pillow's BILINEAR).

    Args:
        decode: "exact" or "fast". With "fast" the decoder reduces a JPEG of at least 896x896 pixels by 2, 4 or 8, to at
            least 448x448 pixels, before the resize. Other files, and those that EXIF turns, are read as with "exact".

    Returns:
        uint8 [224, 224] and the (width, height) of the file's upright image in pixels.

    Raises:
        UnreadableImage: the file is absent, empty, truncated, not an image, or has several frames.
    """
    gray, size, box = decode_file(path, fast=decode == FAST)
    return resized(gray, box), size


def to_square(image: Image.Image) -> np.ndarray:
    """Convert and resize a Pillow image as `read_xray` does: uint8 [224, 224].

    Raises:
        UnreadableImage: the image can't be decoded completely, or has several frames.
    """
    with refusals():
        return resized(upright_gray(image))


def decode_file(path: Path, fast: bool = False) -> tuple[Image.Image, tuple[int, int], Box]:
    """The image of a file in 8-bit gray, upright; its full (width, height); the box of the decoded image that it fills.

    The box is the whole decoded image, but if `fast` reduced it, the last row and column may be filled only partly.

    Raises:
        UnreadableImage: as `read_xray`.
    """
    with open_image(path) as (file, head):
        # Before Pillow: the bytes before DICOM's marker may be those of another format.
        gray = _dicom(file, head) if has_dicom_marker(head) else None
        if gray is None:
            try:
                return decode_image(file, head, fast)
            except UnidentifiedImageError:
                file.seek(0)
                gray = _unknown_to_pillow(file, head)
    return gray, gray.size, (0, 0, *gray.size)


def _unknown_to_pillow(file: BinaryIO, head: bytes) -> Image.Image:
    if is_tiff(head):
        return decode_tiff(file)
    if not may_be_dicom(head):
        raise UnreadableImage(UNKNOWN_FORMAT)
    return _dicom(file, head)


def _dicom(file: BinaryIO, head: bytes) -> Image.Image:
    from prior_fast.radiology.dicom import decode_dicom

    return decode_dicom(file, head)
