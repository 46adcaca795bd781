"""Reading the parts of a DICOM file that its image needs, within bounds: the header first, then the pixels."""

from collections.abc import Callable
from typing import BinaryIO

from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.encaps import generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from prior_fast.radiology.bounded_file import BoundedFile, inflate
from prior_fast.radiology.headers import check_codestream
from prior_fast.radiology.image_file import UnreadableImage, has_dicom_marker, may_be_dicom
from prior_fast.radiology.jpeg_damage import damage
from prior_fast.radiology.jpeg_markers import JPEG_LS, read_markers
from prior_fast.radiology.limits import byte_limit, check_pixels
from prior_fast.radiology.rle_frames import check_rle

NO_DICOM = "no DICOM file"
_SEQUENCES = ("ModalityLUTSequence", "VOILUTSequence")
_TAGS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape", *_SEQUENCES,
)  # fmt: skip
# Elements of a data set become objects of hundreds of bytes, also those of sequences that are skipped.
_HEADER_BYTES, _HEADER_CALLS = 32_000_000, 100_000
_SEQUENCE_BYTES, _VALUE_BYTES = 3_000_000, 65_536
_PIXEL_TAGS = (b"\xe0\x7f\x10\0", b"\x7f\xe0\0\x10")
_META_END, _LONG_LENGTHS = (
    132,
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"),
)
_JPEG, _CODESTREAM = b"\xff\xd8", b"\xff\x4f"


def read_dataset(file: BinaryIO, head: bytes, check: Callable[[Dataset], None]) -> Dataset:
    """The data set of a file with the elements that its image needs, and a transfer syntax also if it names none.

    Args:
        head: the first 132 bytes of the file.
        check: refuses a data set without its pixels, before they are read.

    Raises:
        UnreadableImage: the file has no pixels, or is too large in some way.
        Exception: whatever pydicom raises on broken data.
    """
    marked = has_dicom_marker(head)
    if not marked and not may_be_dicom(head):
        raise UnreadableImage(NO_DICOM)
    none = UnreadableImage("no pixel data, or cut off in them" if marked else NO_DICOM)
    forced = not marked
    if marked and (place := _deflated(file)):
        file.seek(place)
        file, forced = inflate(file, byte_limit() + _HEADER_BYTES), True
    try:
        header = _read(file, _HEADER_BYTES, forced, before_pixels=True)
    except UnreadableImage:
        raise
    except Exception as error:
        if marked:
            raise
        raise UnreadableImage(NO_DICOM) from error
    if file.read(4) not in _PIXEL_TAGS:
        raise none
    _add_syntax(header)
    check(header)
    dataset = _read(file, _HEADER_BYTES + byte_limit(), forced)
    if "PixelData" not in dataset:
        raise none
    _add_syntax(dataset)
    return dataset


def check_frame(dataset: Dataset) -> None:
    """Refuse a compressed frame that is larger than the header of the file says, and several frames.

    Raises:
        UnreadableImage: there are several, or its decoding would exceed the limit.
    """
    frames = generate_frames(dataset.PixelData, number_of_frames=1)
    frame = next(frames, b"")
    if next(frames, None) is not None:
        raise UnreadableImage("several frames")
    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        check_rle(frame, int(dataset.Rows) * int(dataset.Columns))
    elif frame.startswith(_CODESTREAM):
        check_codestream(frame)
    elif frame.startswith(_JPEG):
        _check_jpeg(frame, int(dataset.Columns), int(dataset.Rows))


def _check_jpeg(frame: bytes, width: int, height: int) -> None:
    jpeg = read_markers(frame)
    if (jpeg.width, jpeg.height) != (width, height):
        raise UnreadableImage(
            f"a JPEG frame of {jpeg.width}x{jpeg.height} pixels, but the header says {width}x{height}"
        )
    check_pixels(width, height, -(-jpeg.bits // 8) * len(jpeg.components))
    if jpeg.gaps:
        # GDCM ends the process on some of these.
        raise UnreadableImage("a broken JPEG frame: there are bytes between its parts")
    # Compressed data of JPEG-LS have other markers.
    if jpeg.kind != JPEG_LS and (reason := damage(frame, jpeg)):
        raise UnreadableImage(reason)


def _read(file: BinaryIO, most_bytes: int, forced: bool, before_pixels: bool = False) -> Dataset:
    file.seek(0)
    bounded = BoundedFile(file, most_bytes, _HEADER_CALLS, "the elements of the DICOM file")
    tags = [*_TAGS] if before_pixels else [*_TAGS, "PixelData"]
    dataset = dcmread(bounded, force=forced, stop_before_pixels=before_pixels, specific_tags=tags)
    for name in _TAGS:
        element = dataset.get_item(name) if name in dataset else None
        most = _SEQUENCE_BYTES if name in _SEQUENCES else _VALUE_BYTES
        if isinstance(element, RawDataElement) and element.value is not None and len(element.value) > most:
            raise UnreadableImage(f"the DICOM element {name} has {len(element.value)} bytes, more than {most}")
    return dataset


def _add_syntax(dataset: Dataset) -> None:
    """Add the transfer syntax that the encoding of the elements shows, if the file names none."""
    if "TransferSyntaxUID" in dataset.file_meta:
        return
    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
        raise UnreadableImage("the pixels are compressed, and no TransferSyntaxUID says how")
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _deflated(file: BinaryIO) -> int:
    """Where the deflated data begin; 0 if the file is not deflated (PS3.10, 7.1; PS3.5, A.5)."""
    place, syntax = _META_END, b""
    while True:
        file.seek(place)
        head = file.read(12)
        if head[:2] != b"\2\0":
            return place if syntax.rstrip(b"\0 ") == DeflatedExplicitVRLittleEndian.encode() else 0
        short = head[4:6] not in _LONG_LENGTHS
        begin = 8 if short else 12
        length = int.from_bytes(head[6:8] if short else head[8:12], "little")
        if head[2:4] == b"\x10\0":
            file.seek(place + begin)
            syntax = file.read(min(length, 64))
        place += begin + length
