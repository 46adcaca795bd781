import io

import numpy as np
import pytest
from PIL import Image

from prior_fast.radiology.masks import box_mask, encode_mask, read_mask
from prior_fast.radiology.xray import UnreadableImage, read_xray


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_a_gray_jpeg_is_resized_plainly(tmp_path, rng):
    path = save(tmp_path / "a.jpg", rng.integers(0, 256, (300, 500), np.uint8), quality=92)
    pixels, size = read_xray(path)
    assert size == (500, 300)
    with Image.open(path) as image:
        expected = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels, expected)


def test_the_resize_averages_what_it_leaves_out(tmp_path):
    # Columns 0, 255, 0, 255, ...: without antialiasing single columns would be picked.
    pixels = np.tile(np.array([0, 255], np.uint8), (448, 448))
    resized, _ = read_xray(save(tmp_path / "a.png", pixels))
    assert np.abs(resized[:, 1:-1].astype(int) - 127).max() <= 1


def test_rgb_becomes_luma(tmp_path):
    pixels = np.full((30, 40, 3), (200, 100, 50), np.uint8)
    resized, _ = read_xray(save(tmp_path / "a.png", pixels))
    assert np.unique(resized).tolist() == [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]


@pytest.mark.parametrize(("value", "gray"), [(0, 0), (257, 1), (32768, 128), (65535, 255)])
def test_16_bit_gray_is_scaled(tmp_path, value, gray):
    resized, _ = read_xray(save(tmp_path / "a.png", np.full((30, 40), value, np.uint16)))
    assert np.unique(resized).tolist() == [gray]


def test_one_bit_images_are_read(tmp_path):
    resized, _ = read_xray(save(tmp_path / "a.png", np.ones((30, 40), bool)))
    assert np.unique(resized).tolist() == [255]


def test_unreadable_files(tmp_path, rng):
    whole = save(tmp_path / "a.jpg", rng.integers(0, 256, (300, 500), np.uint8)).read_bytes()
    for data, reason in [(b"", "empty"), (b"plain text", "no image"), (whole[: len(whole) // 2], "truncated")]:
        path = tmp_path / "b.jpg"
        path.write_bytes(data)
        with pytest.raises(UnreadableImage, match=reason):
            read_xray(path)
    with pytest.raises(UnreadableImage, match="no such file"):
        read_xray(tmp_path / "c.jpg")
    with pytest.raises(UnreadableImage, match="directory"):
        read_xray(tmp_path)
    cut_png = save(tmp_path / "d.png", rng.integers(0, 256, (300, 500), np.uint8)).read_bytes()[:5000]
    (tmp_path / "d.png").write_bytes(cut_png)
    with pytest.raises(UnreadableImage, match="truncated"):
        read_xray(tmp_path / "d.png")


def test_a_mask_pixel_is_set_by_half_of_its_area(tmp_path):
    pixels = np.zeros((448, 448), np.uint8)
    pixels[0, 0] = 255  # a quarter of the first pixel
    pixels[0, 2:4] = 255  # half of the second
    pixels[0:2, 4:6] = 255  # all of the third
    pixels[100:102, 100:102] = 127  # not set at all
    mask = read_mask(save(tmp_path / "m.png", pixels))
    assert mask.dtype == bool
    assert np.argwhere(mask).tolist() == [[0, 1], [0, 2]]


def test_a_box_fills_its_pixels():
    mask = box_mask(x=10, y=20, width=3, height=2)
    assert np.argwhere(mask).tolist() == [[row, column] for row in (20, 21) for column in (10, 11, 12)]


def test_an_encoded_mask_decodes_to_itself(rng):
    mask = rng.random((224, 224)) < 0.3
    image = Image.open(io.BytesIO(encode_mask(mask)))
    assert image.mode == "1"
    np.testing.assert_array_equal(np.asarray(image), mask)
