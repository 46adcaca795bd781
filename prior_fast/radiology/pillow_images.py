"""Images that Pillow decodes, as upright 8-bit gray."""

from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from prior_fast.radiology.gray_levels import gray_levels
from prior_fast.radiology.headers import check_header
from prior_fast.radiology.image_file import UnreadableImage
from prior_fast.radiology.jpeg_damage import damage, damage_after
from prior_fast.radiology.jpeg_markers import read_markers
from prior_fast.radiology.limits import check_pixels
from prior_fast.radiology.square import IMAGE_SIZE, Box

# Not Pillow's whole list: it runs a program on PostScript, for example.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "JPEG2000", "BMP", "GIF", "PPM")
# A JPEG decoded with "fast" keeps at least this many times the target's width and height, so that the resize averages.
_FAST_MARGIN = 2
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_JPEG = b"\xff\xd8\xff"
_TURNS = range(2, 9)  # of EXIF orientations
_WHITE_IS_ZERO = 0
_SIGNED = 2
# Below this gray level the upper bytes of 16-bit values fill less than a quarter of their range.
_QUARTER = 64


def decode_image(file: BinaryIO, head: bytes, fast: bool = False) -> tuple[Image.Image, tuple[int, int], Box]:
    """The image in 8-bit gray, upright, the (width, height) of the upright full-size image, and the box that it fills.

    The box is the whole image, but if `fast` reduced it, the last row and column may be filled only partly.

    Args:
        head: the first bytes of the file.
        fast: reduce a JPEG while it is decoded, if it is large and its metadata do not turn it.

    Raises:
        UnreadableImage: the image is too large, has several frames, pixels that are not finite, or damage that libjpeg
            fills in.
        Exception: whatever Pillow raises on broken data; UnidentifiedImageError on an unknown kind.
    """
    check_header(file, head)
    with Image.open(file, formats=_FORMATS) as image:
        check_pixels(*image.size)
        check_damage = _checked_jpeg(file) if head.startswith(_JPEG) else None
        size, reduced = image.size, None
        if fast and isinstance(image, JpegImageFile) and _orientation(image) not in _TURNS:
            reduced = image.draft(None, (_FAST_MARGIN * IMAGE_SIZE, _FAST_MARGIN * IMAGE_SIZE))
        gray = upright_gray(image)
        if check_damage:
            check_damage(image)
        if _lost_lower_bytes(image, head) and not np.any(np.asarray(gray) >= _QUARTER):
            raise UnreadableImage("dark 16-bit color, of which only the upper 8 bits are read; save it as 16-bit gray")
    return (gray, size, reduced[1]) if reduced else (gray, gray.size, (0, 0, *gray.size))


def upright_gray(image: Image.Image) -> Image.Image:
    """A Pillow image in 8-bit gray, turned as its EXIF orientation says. Colors become luma (Pillow's "L").

    Gray of more than 8 bits is scaled as `gray_levels` says. White is the highest level, also if a TIFF file stores it
    as 0.

    Raises:
        UnreadableImage: the image has several frames, or pixels that are not finite.
        Exception: whatever Pillow raises on broken data; UnidentifiedImageError if Pillow reads its kind wrongly.
    """
    check_pixels(*image.size)
    # The first image of a MPO file is the picture; the others are previews or other views of it.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames != 1:
        raise UnreadableImage(f"{frames} frames")
    if image.mode in ("I", "F") and _bytes_are_swapped(image):
        raise UnidentifiedImageError
    image.load()
    return turned(_gray(image), _orientation(image))


def turned(gray: Image.Image, orientation: int) -> Image.Image:
    """The image after the turn of an EXIF orientation, 1 to 8; of another number the image itself."""
    if orientation not in _TURNS:
        return gray
    gray.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(gray)


def _checked_jpeg(file: BinaryIO) -> Callable[[Image.Image], None]:
    """Refuse a damaged JPEG file, and return a check of the decoded image. Leaves the place in `file` as it was."""
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    jpeg = read_markers(data)

    def refuse(reason: str | None) -> None:
        if reason is not None:
            raise UnreadableImage(reason)

    refuse(damage(data, jpeg))
    return lambda image: refuse(damage_after(image, data, jpeg))


def _gray(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    bits, signed = tags.get(_BITS, (8,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
    if image.mode == "L" and not signed:
        return image
    if image.mode not in ("L", "F") and not image.mode.startswith("I"):
        # Pillow converts premultiplied gray only this way.
        return (image.convert("LA") if image.mode == "La" else image).convert("L")
    values = np.asarray(image)
    # Pillow decodes these two kinds with the sign of the other.
    if image.mode == "L":
        values = values.view(np.int8)
    elif image.mode == "I" and bits == 32 and not signed:
        values = values.view(np.uint32)
    levels = gray_levels(values, bits) if 8 < bits < 16 else gray_levels(values)
    # Pillow itself inverts only 8 bits and fewer.
    inverted = image.mode != "L" and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    return Image.fromarray(255 - levels if inverted else levels)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata; the pixels may still be whole
        return 1


def _bytes_are_swapped(image: Image.Image) -> bool:
    """Whether the image is a compressed big-endian TIFF file, whose signed integers and floats Pillow 13 reverses."""
    tags = getattr(image, "tag_v2", None)
    return tags is not None and tags.prefix == b"MM" and image.info.get("compression") != "raw"


def _lost_lower_bytes(image: Image.Image, head: bytes) -> bool:
    """Whether the file has 16 bits for each of several samples of a pixel: Pillow keeps the upper 8."""
    if image.format == "PNG":
        depth, color = head[24:26]  # of the IHDR chunk
        return depth == 16 and color != 0
    return len(image.getbands()) > 1 and max(getattr(image, "tag_v2", {}).get(_BITS, (8,))) > 8
