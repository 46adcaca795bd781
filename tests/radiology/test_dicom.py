"""DICOM files of every kind that the readers meet, and those that they refuse."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi_lut, get_decoder
from pydicom.uid import (
    MPEG2MPML,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from prior_fast.phantom.layouts.dicom import write_dicom
from prior_fast.radiology.dicom import read_dicom
from prior_fast.radiology.xray import UnreadableImage, read_xray, to_square
from tests.prepare.labelled.trees import raw_dicom, xray

PIXELS = xray(3, 60, 44)
SQUARE = to_square(Image.fromarray(PIXELS))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.dcm"


def test_8_bits_are_taken_as_they_are(path):
    raw_dicom(path, PIXELS)
    image, size = read_dicom(path)
    assert size == (44, 60) and image.dtype == np.uint8
    assert np.array_equal(image, SQUARE)


def test_a_window_counts_for_8_bits_too(path):
    raw_dicom(path, PIXELS, WindowCenter=120, WindowWidth=90)
    expected = np.rint(apply_voi_lut(PIXELS, dcmread(path))).astype(np.uint8)
    assert np.ptp(expected) == 255 and not np.array_equal(expected, PIXELS)
    assert np.array_equal(read_dicom(path)[0], to_square(Image.fromarray(expected)))


def test_implicit_little_endian(path):
    raw_dicom(path, PIXELS, syntax=ImplicitVRLittleEndian)
    assert np.array_equal(read_dicom(path)[0], SQUARE)


def test_jpeg_baseline(path):
    write_dicom(path, PIXELS, ("2.25.1", "2.25.2", "2.25.3"), {})
    image, size = read_dicom(path)
    assert size == (44, 60)
    assert np.abs(image.astype(int) - SQUARE).mean() < 2


def test_monochrome1_is_inverted(path):
    raw_dicom(path, PIXELS, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_dicom(path)[0], to_square(Image.fromarray(255 - PIXELS)))


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_more_bits_are_scaled_by_their_range(path, bits):
    stored = np.linspace(0, 2**bits - 1, 60 * 44).reshape(60, 44).astype(np.uint16)
    raw_dicom(path, stored, bits)
    expected = np.rint(stored / (2**bits - 1) * 255).astype(np.uint8)
    assert np.array_equal(read_dicom(path)[0], to_square(Image.fromarray(expected)))


def test_signed_values_are_scaled_from_their_lowest(path):
    stored = np.linspace(-2048, 2047, 60 * 44).reshape(60, 44).astype(np.int16)
    raw_dicom(path, stored, 12)
    expected = np.rint((stored.astype(float) + 2048) / 4095 * 255).astype(np.uint8)
    assert np.array_equal(read_dicom(path)[0], to_square(Image.fromarray(expected)))


@pytest.mark.parametrize(
    ("function", "level"),
    [
        ("LINEAR", lambda v: (v - 499.5) / 199 + 0.5),
        ("LINEAR_EXACT", lambda v: (v - 500) / 200 + 0.5),
        ("SIGMOID", lambda v: 1 / (1 + np.exp(-4 * (v - 500) / 200))),
    ],
)
def test_the_first_window_after_the_rescale_slope(path, function, level):
    stored = np.linspace(0, 4095, 60 * 44).reshape(60, 44).astype(np.uint16)
    window = {"WindowCenter": [500, 1000], "WindowWidth": [200, 4000], "VOILUTFunction": function}
    raw_dicom(path, stored, 12, RescaleSlope=0.5, RescaleIntercept=-100, **window)
    gray = np.rint(np.clip(level(stored * 0.5 - 100), 0, 1) * 255).astype(np.uint8)
    assert np.ptp(gray) > 200
    assert np.array_equal(read_dicom(path)[0], to_square(Image.fromarray(gray)))


def test_a_window_without_width_counts_as_none(path):
    stored = np.full((20, 20), 4095, np.uint16)
    raw_dicom(path, stored, 12, WindowCenter=10, WindowWidth=1)
    assert (read_dicom(path)[0] == 255).all()


@pytest.mark.parametrize("encoding", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "padded"])
def test_pydicoms_own_image_is_the_same_in_every_encoding(encoding):
    plain, other = (get_testdata_file(f"MR_small{name}.dcm", download=False) for name in ("", f"_{encoding}"))
    image, size = read_dicom(Path(plain))
    assert size == (64, 64) and np.ptp(image) > 150
    assert np.array_equal(read_dicom(Path(other))[0], image)


def test_files_that_are_refused(path):
    def refused() -> str:
        with pytest.raises(UnreadableImage) as caught:
            read_dicom(path)
        assert "\n" not in str(caught.value) and str(path) not in str(caught.value)
        return str(caught.value)

    assert refused() == "there is no such file"
    path.touch()
    assert refused() == "the file is empty"
    path.write_bytes(b"not a DICOM file" * 100)
    assert refused() == "no DICOM file"
    raw_dicom(path, np.zeros((3, 20, 20), np.uint8), NumberOfFrames=3)
    assert refused() == "3 frames"
    raw_dicom(path, np.zeros((20, 20, 3), np.uint8), SamplesPerPixel=3, PhotometricInterpretation="RGB")
    assert refused() == "no gray image (PhotometricInterpretation RGB)"
    raw_dicom(path, PIXELS)
    path.write_bytes(path.read_bytes()[:-500])
    assert "can't be decoded" in refused()
    write_dicom(path, PIXELS, ("2.25.1", "2.25.2", "2.25.3"), {})
    path.write_bytes(path.read_bytes()[:900])
    assert refused() == "no pixel data, or cut off in them"


def test_a_header_without_pixels_is_refused(path):
    raw_dicom(path, PIXELS)
    dataset = dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(UnreadableImage, match="no pixel data"):
        read_dicom(path)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_file_without_preamble_is_read_if_it_has_pixels(path, syntax):
    raw_dicom(path, PIXELS, syntax=syntax)
    dataset = dcmread(path)
    with path.open("wb") as file:
        dcmwrite(file, Dataset(dataset), implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    assert path.read_bytes()[128:132] != b"DICM"
    for read in (read_dicom, read_xray):
        image, size = read(path)
        assert size == (44, 60) and np.array_equal(image, SQUARE)
    del dataset.PixelData
    with path.open("wb") as file:
        dcmwrite(file, Dataset(dataset), implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    for read in (read_dicom, read_xray):
        with pytest.raises(UnreadableImage, match="no DICOM file"):
            read(path)


def test_bytes_before_the_marker_may_be_of_another_format(path):
    raw_dicom(path, PIXELS)
    for start in (b"II*\0\x08\0\0\0", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(start + path.read_bytes()[len(start) :])
        assert np.array_equal(read_xray(path)[0], SQUARE)


def compressed(path: Path, syntax: UID, data: bytes, **facts: object) -> None:
    """A DICOM file of one compressed frame of PIXELS."""
    raw_dicom(path, PIXELS, **facts)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([data])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_a_missing_decoder_is_named_with_its_extra(path, syntax, monkeypatch):
    decoder = get_decoder(syntax)
    monkeypatch.setattr(type(decoder), "is_available", property(lambda self: syntax != self.UID))
    compressed(path, syntax, b"\xff\xd8\xff\xd9")
    with pytest.raises(UnreadableImage) as caught:
        read_xray(path)
    assert f"({syntax}) is installed: pip install 'prior-fast[dicom]'" in str(caught.value)
    assert syntax.name in str(caught.value)


def test_an_unknown_compression_is_named(path):
    compressed(path, MPEG2MPML, b"\0\0")
    with pytest.raises(
        UnreadableImage, match=r"no decoder for the transfer syntax MPEG2 .*\(1.2.840.10008.1.2.4.100\)"
    ):
        read_xray(path)


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless", "JPEGLSNearLossless_08", "JPEGLSNearLossless_16"])
def test_jpeg_ls_with_the_extra(name):
    if not get_decoder(JPEGLSLossless).is_available:
        pytest.skip("no decoder of JPEG-LS is installed")
    image, _ = read_xray(Path(get_testdata_file(f"{name}.dcm", download=False)))
    assert np.ptp(image) > 100
    if name.startswith("MR"):
        assert np.array_equal(image, read_xray(Path(get_testdata_file("MR_small.dcm", download=False)))[0])


def test_values_above_the_stored_bits_are_white(path):
    """JPEG 2000 has bits of its own, which may be more than those that the file declares."""
    stored = np.linspace(0, 65535, 60 * 44).reshape(60, 44).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "JPEG2000", no_jp2=True)
    compressed(path, JPEG2000Lossless, buffer.getvalue(), BitsAllocated=16, BitsStored=12, HighBit=11)
    expected = np.rint(stored.clip(0, 4095) / 4095 * 255).astype(np.uint8)
    assert np.array_equal(read_xray(path)[0], to_square(Image.fromarray(expected)))


def test_compressed_pixels_without_a_transfer_syntax(path):
    write_dicom(path, PIXELS, ("2.25.1", "2.25.2", "2.25.3"), {})
    dataset = dcmread(path)
    del dataset.file_meta.TransferSyntaxUID
    with path.open("wb") as file:
        dcmwrite(file, dataset, implicit_vr=False, little_endian=True)
    with pytest.raises(UnreadableImage, match="the pixels are compressed, and no TransferSyntaxUID says how"):
        read_xray(path)


def test_frames_that_the_file_does_not_count(path):
    raw_dicom(path, np.stack([PIXELS, PIXELS]), Rows=60, Columns=44)
    with pytest.raises(UnreadableImage, match="2 frames"):
        read_dicom(path)
