"""Scales and colours of heat maps, and the sheet they are drawn on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prior_fast.plotting.overlay import Scale, blend, common_scale, maximum, show_overlay, show_scale
from prior_fast.plotting.sheet import Sheet


def test_one_scale_holds_all_maps() -> None:
    scale = common_scale([np.array([0.32, 0.4]), np.array([0.11, 0.2])], "weight", most=1)
    assert (scale.low, scale.high) == (0.1, 0.45 - 0.05)
    assert scale.strength(np.array([0.1, 0.25, 0.4])) == pytest.approx([0, 0.5, 1])
    assert scale.strength(np.array([-3.0, 9.0])).tolist() == [0, 1]


@pytest.mark.parametrize("value, limits", [(0.5, (0.5, 0.6)), (1.0, (0.9, 1.0)), (0.0, (0.0, 0.1)), (0.97, (0.9, 1.0))])
def test_small_differences_are_not_made_great(value: float, limits: tuple[float, float]) -> None:
    scale = common_scale([np.array([value, value])], "weight", most=1)
    assert (scale.low, scale.high) == limits


def test_rounding_does_not_widen_a_scale() -> None:
    scale = common_scale([np.array([0.2 - 1e-7, 0.6 + 1e-7])], "weight", most=1)
    assert (scale.low, scale.high) == (0.2, 0.6)


def test_the_overlay_leaves_the_image_clean_where_the_value_is_lowest() -> None:
    gray = np.linspace(0, 1, 5)
    clean, strong = blend(gray, np.zeros(5)), blend(gray, np.ones(5))
    np.testing.assert_allclose(clean, np.repeat(gray[:, None], 3, axis=1))
    assert (strong[:, 0] - strong[:, 2] > 0.4).all()
    # The X-ray stays visible under the strongest colour.
    assert np.ptp(strong[:, 1]) > 0.2
    red = blend(np.full(9, 0.3), np.linspace(0, 1, 9))[:, 0]
    assert (np.diff(red) > 0).all()


def test_the_maximum_of_a_plateau_at_the_border_is_its_middle() -> None:
    values = np.zeros((224, 224))
    values[0:16, 208:224] = 1
    assert maximum(values) == pytest.approx((216 / 224, 8 / 224))
    values[200, 10] = 1  # an equal value far away
    assert maximum(values) == pytest.approx((216 / 224, 8 / 224))
    values[100, 30] = 2
    assert maximum(values) == pytest.approx((30.5 / 224, 100.5 / 224))


def test_a_sheet_shows_each_pixel_of_an_image(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (224, 224)).astype(np.uint8)
    sheet = Sheet(2, above=[1, 0], below=[0, 1], bar=True)
    sheet.image(1, 1, image)
    sheet.above(0, 0, "costs $5 and $6")
    sheet.name(1, "row")
    show_scale(sheet, [0, 1], Scale(0, 1, "weight"))
    sheet.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as saved:
        assert saved.size == (sheet.width, sheet.height)
        pixels = np.asarray(saved.convert("L"))
    x, y = sheet._corner(1, 1)
    np.testing.assert_allclose(pixels[y : y + 224, x : x + 224], image, atol=1)


def test_the_maximum_is_marked(tmp_path: Path) -> None:
    values = np.zeros((224, 224))
    values[150, 60] = 1
    sheet = Sheet(1, above=[0], below=[0])
    show_overlay(sheet, 0, 0, np.full((224, 224), 90, np.uint8), values, Scale(0, 1, "weight"))
    sheet.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as saved:
        pixels = np.asarray(saved.convert("RGB")).astype(int)
    x, y = sheet._corner(0, 0)
    white = np.argwhere((pixels[y : y + 224, x : x + 224] > 230).all(axis=2))
    assert len(white) > 10 and np.abs(white.mean(axis=0) - [150, 60]).max() < 2
