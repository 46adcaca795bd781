"""Boxes and masks at 224x224 against a computation by hand in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast.radiology.masks import box_mask, scale_box, shrink_mask


def shares_of(length: int) -> np.ndarray:
    """[224, length] float64: how much of each of 224 equal pieces each of `length` pixels covers."""
    piece = length / 224
    begin = np.arange(224)[:, None] * piece
    pixel = np.arange(length)[None, :]
    return np.clip(np.minimum(begin + piece, pixel + 1) - np.maximum(begin, pixel), 0, None) / piece


@pytest.mark.parametrize("shape", [(1024, 1024), (513, 300), (700, 1001)])
def test_a_mask_has_the_pixels_of_which_half_is_covered(shape, rng):
    # Polygon-like blobs; a pixel within rounding of one half may fall either way.
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, bool)
    for _ in range(5):
        center, radius = rng.uniform(0, shape), rng.uniform(3, min(shape) / 4)
        mask |= np.hypot(y - center[0], x - center[1]) < radius
    share = shares_of(shape[0]) @ mask @ shares_of(shape[1]).T
    clear = np.abs(share - 0.5) > 1e-6
    shrunk, saved = shrink_mask(mask)
    assert not saved and clear.mean() > 0.999
    assert np.array_equal(shrunk[clear], (share >= 0.5)[clear])


def test_a_mask_of_224_stays_as_it_is(rng):
    mask = rng.random((224, 224)) < 0.3
    assert np.array_equal(shrink_mask(mask)[0], mask)


def test_exactly_one_half_is_enough():
    mask = np.zeros((448, 448), bool)
    mask[100:102, 51] = True
    mask[200, 300] = True
    assert np.argwhere(shrink_mask(mask)[0]).tolist() == [[50, 25]]


def test_a_small_mask_keeps_its_greatest_share():
    mask = np.zeros((1024, 1024), bool)
    mask[500:503, 601] = True
    mask[100, 100] = True
    share = shares_of(1024) @ mask @ shares_of(1024).T
    shrunk, saved = shrink_mask(mask)
    assert saved and shrunk.sum() == 1
    assert shrunk[np.unravel_index(share.argmax(), share.shape)]


def test_an_empty_mask_stays_empty():
    shrunk, saved = shrink_mask(np.zeros((1024, 1024), bool))
    assert not saved and not shrunk.any()


floats = st.floats(-300, 1500, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(floats, floats, st.floats(1e-3, 1500), st.floats(1e-3, 1500), st.integers(50, 1200), st.integers(50, 1200))
def test_boxes_are_cut_and_scaled(x, y, width, height, columns, rows):
    found = scale_box((x, y, width, height), (columns, rows))
    left, right = max(x, 0), min(x + width, columns)
    top, bottom = max(y, 0), min(y + height, rows)
    if right <= left or bottom <= top:
        assert found is None
        return
    expected = (left * 224 / columns, top * 224 / rows, (right - left) * 224 / columns, (bottom - top) * 224 / rows)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert found[0] + found[2] <= 224 + 1e-9 and found[1] + found[3] <= 224 + 1e-9


@pytest.mark.parametrize(
    "box",
    [(100, 10, 20, 20), (-30, 10, 20, 20), (10, 80, 5, 5), (10, 10, 0, 5), (10, 10, 5, -5)]
    + [tuple(np.nan if i == j else 10.0 for j in range(4)) for i in range(4)]
    + [(10, 10, np.inf, 5)],
)
def test_boxes_outside_or_without_size_are_none(box):
    assert scale_box(box, (100, 80)) is None


def test_a_filled_box_has_the_pixels_whose_centers_are_in_it():
    box = scale_box((264.0, 152.0, 213.0, 379.0), (1024, 1024))
    y, x = np.mgrid[:224, :224] + 0.5
    scale = 224 / 1024
    inside = (x >= 264 * scale) & (x < 477 * scale) & (y >= 152 * scale) & (y < 531 * scale)
    assert np.array_equal(box_mask(*box), inside)
