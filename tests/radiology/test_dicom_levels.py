"""Gray levels of DICOM files, compared with pydicom's own transforms on fresh random files of many kinds."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from prior_fast.radiology.dicom import read_dicom
from prior_fast.radiology.xray import UnreadableImage, decode_file, read_xray
from tests.prepare.labelled.trees import raw_dicom

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.dcm"


def write(path: Path, stored: np.ndarray, bits: int, syntax: str = ExplicitVRLittleEndian, **facts: Any) -> None:
    if syntax == ExplicitVRBigEndian:
        raw_dicom(path, stored.astype(stored.dtype.newbyteorder(">")), bits, syntax, **facts)
        return
    raw_dicom(path, stored, bits, ExplicitVRLittleEndian if syntax == RLELossless else syntax, **facts)
    if syntax == RLELossless:
        dataset = dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)


def lut(entries: np.ndarray, first: int, bits: int, vr: str = "US", order: str = "<") -> Dataset:
    """A look-up table as an item of a sequence; `vr` is US (numbers) or OW (bytes)."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", vr, entries.astype(f"{order}u2").tobytes() if vr == "OW" else entries.tolist())
    return item


def gray_of(path: Path) -> np.ndarray:
    """The full-size gray image, after a check that both readers give it."""
    gray, size, _ = decode_file(path)
    (first, first_size), (second, second_size) = read_xray(path), read_dicom(path)
    assert np.array_equal(first, second) and first_size == second_size == size == gray.size
    return np.asarray(gray)


def shown_by_pydicom(path: Path, low: float, high: float) -> np.ndarray:
    """pydicom's modality and VOI transform, and its range low..high mapped to 0..255."""
    dataset = dcmread(path)
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    gray = np.rint((values.astype(np.float64) - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
    inverse = dataset.PhotometricInterpretation == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"
    return 255 - gray if inverse else gray


def inversion(rng: np.random.Generator) -> dict[str, str]:
    kind = {"PhotometricInterpretation": str(rng.choice(["MONOCHROME1", "MONOCHROME2"]))}
    return kind | {"PresentationLUTShape": str(rng.choice(["IDENTITY", "INVERSE"]))} if rng.random() < 0.7 else kind


def random_pixels(rng: np.random.Generator, bits: int, signed: bool) -> np.ndarray:
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    low = -(2 ** (bits - 1)) if signed else 0
    return rng.integers(low, low + 2**bits, (23, 34)).astype(kind)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("signed", [False, True])
def test_windows(path: Path, rng: np.random.Generator, syntax: str, function: str | None, signed: bool) -> None:
    for bits, rescaled in itertools.product((8, 10, 12, 16), (False, True)):
        facts: dict[str, Any] = {"VOILUTFunction": function} if function else {}
        slope, intercept = (round(rng.uniform(0.1, 3), 3), round(rng.uniform(-1000, 1000), 2)) if rescaled else (1, 0)
        facts |= {"RescaleSlope": slope, "RescaleIntercept": intercept} if rescaled else {}
        low = -(2 ** (bits - 1)) if signed else 0
        low, high = low * slope + intercept, (low + 2**bits - 1) * slope + intercept
        facts["WindowCenter"] = [round(rng.uniform(low, high), 2), 7]
        facts["WindowWidth"] = [round(rng.uniform(2, high - low), 2), 9]
        write(path, random_pixels(rng, bits, signed), bits, syntax, **facts, **inversion(rng))
        assert np.array_equal(gray_of(path), shown_by_pydicom(path, low, high)), facts


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_voi_luts(path: Path, rng: np.random.Generator, syntax: str, vr: str, bits: int) -> None:
    for signed in (False, True):
        count, first = (200, 20) if bits == 8 else (int(rng.integers(300, 3000)), 100)
        table = np.sort(rng.integers(0, 2**bits, count))
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        facts = {"VOILUTSequence": [lut(table, first, bits, vr, order)], "WindowCenter": 5, "WindowWidth": 3}
        # pydicom itself reads no values above those of an 8-bit table of 256 entries.
        stored = random_pixels(rng, 8 if bits == 8 else 12, signed)
        write(path, stored, 8 if bits == 8 else 12, syntax, **facts, **inversion(rng))
        assert np.array_equal(gray_of(path), shown_by_pydicom(path, 0, 2**bits - 1))


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("bits", [8, 16])
def test_modality_luts(path: Path, rng: np.random.Generator, vr: str, bits: int) -> None:
    table = rng.integers(0, 2**bits, 4096)
    table[[0, -1]] = 0, 2**bits - 1
    stored = random_pixels(rng, 12, False)
    stored[0, :2] = 0, 4095
    modality = {"ModalityLUTSequence": [lut(table, 0, bits, vr)]}
    write(path, stored, 12, **modality, **inversion(rng))
    assert np.array_equal(gray_of(path), shown_by_pydicom(path, 0, 2**bits - 1))
    write(path, stored, 12, **modality, WindowCenter=2 ** (bits - 2), WindowWidth=2 ** (bits - 1), **inversion(rng))
    assert np.array_equal(gray_of(path), shown_by_pydicom(path, 0, 2**bits - 1))
    voi = {"VOILUTSequence": [lut(np.arange(256) * 16, 0, 12, vr)]}
    write(path, stored, 12, **modality, **voi, **inversion(rng))
    assert np.array_equal(gray_of(path), shown_by_pydicom(path, 0, 4095))


def test_rescale_slope_before_a_voi_lut(path: Path, rng: np.random.Generator) -> None:
    facts = {"RescaleSlope": 2, "RescaleIntercept": -300, "VOILUTSequence": [lut(np.arange(4096), -100, 12)]}
    stored = random_pixels(rng, 12, False)
    write(path, stored, 12, **facts)
    index = (stored.astype(int) * 2 - 300 + 100).clip(0, 4095)
    assert np.array_equal(gray_of(path), np.rint(index / 4095 * 255).astype(np.uint8))


@pytest.mark.parametrize("depth", [1, 7, 8, 9, 12, 15])
@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_luts_of_kinds_that_pydicom_does_not_apply(
    path: Path, rng: np.random.Generator, depth: int, keyword: str
) -> None:
    """Other numbers of bits, and 4096 entries of 8 bits, which pydicom finds by an index of 8 bits."""
    table = rng.integers(0, 2**depth, 4096)
    table[7] = 2**depth - 1
    stored = random_pixels(rng, 12, False)
    stored[0, 0] = 7
    expected = np.rint(table[stored] / (2**depth - 1) * 255).astype(np.uint8)
    for vr in ("US", "OW"):
        write(path, stored, 12, **{keyword: [lut(table, 0, depth, vr)]})
        assert np.array_equal(gray_of(path), expected)


@pytest.mark.parametrize("order", ["<", ">"])
def test_entries_of_8_bits_packed_by_two(path: Path, rng: np.random.Generator, order: str) -> None:
    table = rng.integers(0, 256, 256, np.uint8)
    item = lut(table, 0, 8, "OW")
    item.LUTData = table.view("<u2").astype(f"{order}u2").tobytes()
    stored = random_pixels(rng, 8, False)
    syntax = ExplicitVRBigEndian if order == ">" else ExplicitVRLittleEndian
    write(path, stored.astype(np.uint16), 8, syntax, VOILUTSequence=[item])
    assert np.array_equal(gray_of(path), table[stored])


def test_without_voi_the_stored_range_counts(path: Path, rng: np.random.Generator) -> None:
    stored = random_pixels(rng, 12, False)
    stored[0, :2] = 0, 4095
    plain = np.rint(stored / 4095 * 255).astype(np.uint8)
    for facts in ({}, {"RescaleSlope": 3.5, "RescaleIntercept": -7}, {"RescaleSlope": 2}, {"RescaleIntercept": ""}):
        write(path, stored, 12, **facts)
        assert np.array_equal(gray_of(path), plain), facts
    write(path, stored, 12, RescaleSlope=-1, RescaleIntercept=4095)
    assert np.array_equal(gray_of(path), 255 - plain)
    write(path, stored, 12, RescaleSlope=-1, RescaleIntercept=4095, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(gray_of(path), plain)
    # 12 bits of 16 fill less than a quarter of the declared range.
    write(path, stored, 16)
    assert np.array_equal(gray_of(path), plain)
    write(path, stored.astype(np.int16) - 2048, 16)
    assert np.array_equal(gray_of(path), plain)
    write(path, stored * np.uint16(4), 16)
    assert np.array_equal(gray_of(path), np.rint(stored / 4095 * 255 * 4 * 4095 / 16383).astype(np.uint8))


def test_a_falling_slope_before_a_window(path: Path) -> None:
    """The window's highest output is the brightest (C.11.2.1.2), also if the slope reverses pydicom's range."""
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    write(path, stored, 12, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2000, WindowWidth=1000)
    shares = ((4095 - stored.astype(float)) - 1999.5) / 999 + 0.5
    assert np.array_equal(gray_of(path), np.rint(shares.clip(0, 1) * 255).astype(np.uint8))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["INVERSE", "IDENTITY", "inverse ", ""])
def test_both_signs_of_inversion_invert_once(path: Path, rng: np.random.Generator, kind: str, shape: str) -> None:
    stored = random_pixels(rng, 8, False)
    write(path, stored, 8, PhotometricInterpretation=kind, PresentationLUTShape=shape)
    inverted = kind == "MONOCHROME1" or shape.strip().upper() == "INVERSE"
    assert np.array_equal(gray_of(path), 255 - stored if inverted else stored)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (12, True), (15, False)])
def test_unused_bits_are_no_part_of_the_value(
    path: Path, rng: np.random.Generator, bits: int, signed: bool, syntax: str
) -> None:
    if syntax == RLELossless and bits == 8:
        pytest.skip("pydicom does not write 8 bits in 16 this way")
    stored = random_pixels(rng, bits, signed).astype(np.int16 if signed else np.uint16)
    stored[0, :2] = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    write(path, stored, bits, syntax)
    clean = gray_of(path)
    assert (clean[0, 0], clean[0, 1]) == (0, 255)
    garbage = rng.integers(0, 2**16, stored.shape).astype(np.uint16) & np.uint16(0xFFFF << bits & 0xFFFF)
    dirty = (stored.view(np.uint16) & np.uint16(2**bits - 1) | garbage).view(stored.dtype)
    assert not np.array_equal(dirty, stored)
    write(path, dirty, bits, syntax)
    assert np.array_equal(gray_of(path), clean)


def test_32_bits(path: Path) -> None:
    stored = np.linspace(0, 2**32 - 1, 20 * 30).reshape(20, 30).astype(np.uint32)
    write(path, stored, 32)
    assert np.array_equal(gray_of(path), np.rint(stored / (2**32 - 1) * 255).astype(np.uint8))
    write(path, stored, 32, WindowCenter=2**31, WindowWidth=2**30, VOILUTFunction="LINEAR_EXACT")
    shares = (stored - 2.0**31) / 2.0**30 + 0.5
    assert np.array_equal(gray_of(path), np.rint(shares.clip(0, 1) * 255).astype(np.uint8))


@pytest.mark.parametrize(
    "facts",
    [
        {"WindowCenter": 100, "WindowWidth": 0},
        {"WindowCenter": 100, "WindowWidth": -5},
        {"WindowCenter": 100, "WindowWidth": 1},
        {"WindowCenter": 100, "WindowWidth": ""},
        {"WindowCenter": "", "WindowWidth": 50},
        {"WindowWidth": 50},
        {"WindowCenter": 100, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
        {"VOILUTSequence": []},
        {"VOILUTSequence": [Dataset()]},
        {"ModalityLUTSequence": []},
    ],
)
def test_a_transform_that_is_not_usable_counts_as_none(path: Path, rng: np.random.Generator, facts: dict) -> None:
    stored = random_pixels(rng, 8, False)
    write(path, stored, 8, **facts)
    assert np.array_equal(gray_of(path), stored)


def test_an_unknown_function_counts_as_linear(path: Path, rng: np.random.Generator) -> None:
    stored = random_pixels(rng, 12, False)
    images = []
    for function in ("LINEAR", "CUBIC", "linear"):
        write(path, stored, 12, WindowCenter=2000, WindowWidth=700, VOILUTFunction=function)
        images.append(gray_of(path))
    assert np.ptp(images[0]) == 255 and all(np.array_equal(images[0], other) for other in images)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "RescaleSlope 0.0 and RescaleIntercept 5.0 give no gray levels"),
        ({"VOILUTSequence": [lut(np.arange(10), 0, 17)]}, "a VOI LUT of 17 bits has 10 entries"),
        ({"ModalityLUTSequence": [Dataset()]}, "a modality LUT without LUTDescriptor or LUTData"),
    ],
)
def test_transforms_that_are_refused(path: Path, facts: dict, reason: str) -> None:
    write(path, np.zeros((20, 30), np.uint16), 12, **facts)
    with pytest.raises(UnreadableImage, match=reason):
        read_dicom(path)


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_a_lut_that_is_cut_off_is_refused(path: Path, vr: str) -> None:
    item = lut(np.arange(100), 0, 12, vr)
    item.LUTDescriptor = [200, 0, 12]
    write(path, np.zeros((20, 30), np.uint16), 12, VOILUTSequence=[item])
    with pytest.raises(UnreadableImage, match="a VOI LUT of 12 bits has 100 entries, wanted 200"):
        read_dicom(path)
