"""Images that their EXIF orientation turns: the same as Pillow's exif_transpose, in every way to read them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from prior_fast.radiology.masks import read_mask
from prior_fast.radiology.xray import decode_file, read_xray, to_square
from tests.prepare.labelled.trees import xray


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[ExifTags.Base.Orientation] = orientation
    return found


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_turned_as_pillow_turns(tmp_path: Path, name: str, orientation: int, mode: str) -> None:
    if mode == "I;16" and name in ("JPEG", "WEBP"):
        pytest.skip("8 bits only")
    pixels = xray(6, 50, 70)
    image = Image.fromarray(pixels.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "a", name, exif=exif(orientation))
    # Pillow 13 turns uncompressed TIFF files wrongly if it opens them by their names.
    data = io.BytesIO((tmp_path / "a").read_bytes())
    with Image.open(data) as opened:
        upright = ImageOps.exif_transpose(opened)
    expected = (np.asarray(upright) // 257).astype(np.uint8) if mode == "I;16" else np.asarray(upright.convert("L"))
    gray, size, _ = decode_file(tmp_path / "a")
    assert size == upright.size and np.array_equal(np.asarray(gray), expected)
    assert size == ((50, 70) if orientation in (5, 6, 7, 8) else (70, 50))
    square = np.asarray(Image.fromarray(expected).resize((224, 224), Image.Resampling.BILINEAR))
    for decode in ("exact", "fast"):
        pixels, found = read_xray(tmp_path / "a", decode)
        assert found == size and np.array_equal(pixels, square)
    with Image.open(data) as opened:
        assert np.array_equal(to_square(opened), square)
        assert np.array_equal(to_square(opened), square)  # the caller's image was left as it was


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_large_turned_jpeg_is_decoded_at_full_size(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(xray(7, 1001, 1300))
    image.save(tmp_path / "a.jpg", exif=exif(orientation))
    image.save(tmp_path / "b.jpg")
    (exact, size), (fast, fast_size) = (read_xray(tmp_path / "a.jpg", decode) for decode in ("exact", "fast"))
    assert size == fast_size == ((1001, 1300) if orientation > 4 else (1300, 1001))
    assert np.array_equal(exact, fast)
    assert decode_file(tmp_path / "b.jpg", fast=True)[0].size == (650, 501)


def test_broken_metadata_do_not_cost_the_image(tmp_path: Path) -> None:
    whole = exif(6).tobytes()
    for data in (b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", whole[:-8]):
        buffer = io.BytesIO()
        Image.fromarray(xray(6, 50, 70)).save(buffer, "JPEG", exif=data)
        (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
        expected = np.asarray(Image.open(buffer))
        assert np.array_equal(np.asarray(decode_file(tmp_path / "a.jpg", fast=True)[0]), expected)


def test_a_mask_is_turned_as_its_image(tmp_path: Path) -> None:
    pixels = np.zeros((64, 96), np.uint8)
    pixels[:20, :30] = 255
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif(6))
    assert np.array_equal(read_mask(tmp_path / "turned.png"), read_mask(tmp_path / "plain.png"))
