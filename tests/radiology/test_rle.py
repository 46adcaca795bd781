"""SIIM-ACR's relative run-length encoding against a slow decoding, pixel by pixel."""

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast.radiology.rle import decode_rle, encode_rle

masks = npst.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def decode_slowly(text: str, rows: int, columns: int) -> np.ndarray:
    """Decoding as on the competition's page: move by the offset, fill the run, continue from its end."""
    mask, position, numbers = np.zeros((rows, columns), bool), 0, iter(text.split())
    for offset in numbers:
        position += int(offset)
        for _ in range(int(next(numbers))):
            mask[position % rows, position // rows] = True
            position += 1
    return mask


@settings(deadline=None)
@given(masks.filter(np.any))
def test_round_trip_and_slow_decoding(mask):
    text = encode_rle(mask)
    assert np.array_equal(decode_rle(text, *mask.shape), mask)
    assert np.array_equal(decode_slowly(text, *mask.shape), mask)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8), st.integers(1, 15))
def test_any_pairs_decode_as_slowly(pairs, rows):
    columns = sum(map(sum, pairs)) // rows + 1
    text = " ".join(f"{offset} {length}" for offset, length in pairs)
    assert np.array_equal(decode_rle(text, rows, columns), decode_slowly(text, rows, columns))


def test_columns_come_first_and_offsets_are_relative():
    mask = decode_rle("1 2 3 1", 4, 3)
    assert np.argwhere(mask).tolist() == [[1, 0], [2, 0], [2, 1]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10 5 80 6", "runs to pixel 101 of an image of 10 x 10 = 100"),
        ("3 4 5", "3 numbers, not pairs"),
        ("", "0 numbers"),
        ("3 four", "'four' where a number belongs"),
        ("3 -4", "'-4' where a number belongs"),
        ("3 1.5", "'1.5'"),
        ("99999999999999999999 1", "runs to pixel"),
        ("9" * 100 + " 1", "runs to pixel"),
        ("9" * 5000 + " 1", "^the RLE has a number of 5000 digits$"),
    ],
)
def test_what_is_no_encoding_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        decode_rle(text, 10, 10)


def test_a_run_may_end_with_the_image():
    assert decode_rle("90 10", 10, 10).sum() == 10
