"""The range of values that black and white stand for, against the rules written out by hand."""

import numpy as np
import pytest

from prior_fast.radiology.gray_levels import declared_range, gray_levels, scaled
from prior_fast.radiology.image_file import UnreadableImage


def by_hand(values: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    return np.rint((values.astype(np.float64) - lowest) / (highest - lowest) * 255).clip(0, 255).astype(np.uint8)


def spread(lowest: float, highest: float, dtype: str) -> np.ndarray:
    """An image [30, 40] from the lowest to the highest value."""
    return np.linspace(lowest, highest, 1200).reshape(30, 40).astype(dtype)


@pytest.mark.parametrize(
    ("highest", "white"),
    # A quarter of 16 bits is 16384 values: 0..16383 fill less than a quarter of 0..65535.
    [
        (65535, 65535),
        (20000, 65535),
        (16384, 65535),
        (16383, 16383),
        (4096, 16383),
        (4095, 4095),
        (256, 1023),
        (255, 255),
        (1, 255),
    ],
)
def test_16_bits_are_scaled_by_what_the_image_fills(highest: int, white: int) -> None:
    values = spread(0, highest, "uint16")
    assert np.array_equal(gray_levels(values), by_hand(values, 0, white))


def test_12_bits_in_16_keep_their_gray_levels() -> None:
    assert len(np.unique(gray_levels(np.arange(4096, dtype=np.uint16)[None]))) == 256


@pytest.mark.parametrize("value", [0, 1, 257, 4095, 40000, 65535])
def test_an_image_of_one_value_has_the_declared_range(value: int) -> None:
    for dtype in ("uint16", "int32", "uint32", "int64", ">u2"):
        assert np.unique(gray_levels(np.full((3, 4), value, dtype))).tolist() == [round(value / 257)]


@pytest.mark.parametrize(
    ("lowest", "highest", "bits", "signed", "wanted"),
    [
        (0, 4095, 12, False, (0, 4095)),
        (0, 1023, 12, False, (0, 1023)),
        (0, 1024, 12, False, (0, 4095)),
        (0, 30, 12, False, (0, 255)),
        (30, 30, 12, False, (0, 4095)),
        (0, 30, 8, False, (0, 255)),
        (0, 1, 1, False, (0, 1)),
        (0, 30, 9, False, (0, 255)),
        (-2048, 2047, 12, True, (-2048, 2047)),
        (-1024, 3071, 16, True, (-4096, 4095)),
        (-1, 5, 16, True, (-128, 127)),
        (-5, -5, 16, True, (-32768, 32767)),
        (-30, -5, 16, True, (-128, 127)),
        (-300, -5, 16, True, (-512, 511)),
        (-10000, 100, 16, True, (-32768, 32767)),
        (0, 4095, 16, True, (0, 4095)),
        (0, 20000, 16, True, (-32768, 32767)),
    ],
)
def test_declared_range(lowest: int, highest: int, bits: int, signed: bool, wanted: tuple[int, int]) -> None:
    assert declared_range(lowest, highest, bits, signed) == wanted


@pytest.mark.parametrize(
    ("dtype", "lowest", "highest", "black", "white"),
    [
        ("int16", 0, 4000, 0, 4095),
        ("int16", 0, 32767, 0, 65535),
        ("int16", -1000, 3000, -1000, 3000),
        ("int16", -32768, 32767, -32768, 32767),
        ("int8", -128, 127, -128, 127),
        ("int32", 0, 65535, 0, 65535),
        ("int32", 0, 70000, 0, 70000),
        ("uint32", 0, 3_000_000_000, 0, 3_000_000_000),
        ("float32", 0, 1, 0, 1),
        ("float64", 0.2, 0.3, 0, 1),
        ("float16", -1, 1, -1, 1),
        ("float64", -0.1, 0.5, -1, 1),
        ("float32", 0, 255, 0, 255),
        ("float32", 3, 200.5, 0, 255),
        ("float32", -1024, 1024, -1024, 1024),
        ("float64", -2, 700, -1024, 1024),
        ("float32", 0, 4095, 0, 4095),
        ("float32", 0, 65535, 0, 65535),
        ("float32", 0.5, 255.5, 0, 1023),  # 255.5 needs more than eight bits
        ("float64", 10, 1e6, 0, 1e6),
        ("float64", -3000, 500, -3000, 500),
        ("float32", -5, 3000, -5, 3000),
    ],
)
def test_other_kinds(dtype: str, lowest: float, highest: float, black: float, white: float) -> None:
    values = spread(lowest, highest, dtype)
    assert np.array_equal(gray_levels(values), by_hand(values, black, white))


def test_8_bits_and_bool(rng: np.random.Generator) -> None:
    values = rng.integers(0, 100, (3, 4), np.uint8)
    assert gray_levels(values) is values
    assert gray_levels(np.array([[False, True]])).tolist() == [[0, 255]]


def test_an_image_of_one_negative_value_is_black() -> None:
    assert np.array_equal(gray_levels(np.full((2, 2), -7, np.int16)), np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    values[1, 2] = bad
    with pytest.raises(UnreadableImage, match="a pixel is NaN or infinite"):
        gray_levels(values)


def test_values_outside_of_the_range_are_clipped() -> None:
    for dtype in (np.uint16, np.int32, np.float32):
        assert scaled(np.array([5, 10, 15, 20, 25], dtype), 10, 20).tolist() == [0, 0, 128, 255, 255]
