"""Files of every format that `read_xray` reads, compared with Pillow's own decoding, and files that it refuses."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prior_fast.radiology.masks import read_mask
from prior_fast.radiology.xray import UnreadableImage, to_square
from tests.prepare.labelled.trees import raw_dicom, xray
from tests.radiology.full_size import gray_of, refused

PIXELS = xray(4, 50, 70)
COLOR = np.stack([PIXELS, PIXELS.T.reshape(50, 70), 255 - PIXELS], axis=-1)


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def in_any_format() -> dict[str, bytes]:
    gray, color = Image.fromarray(PIXELS), Image.fromarray(COLOR)
    with_alpha = color.convert("RGBA")
    with_alpha.putalpha(Image.fromarray(255 - PIXELS))
    gray_with_alpha = gray.convert("LA")
    gray_with_alpha.putalpha(100)
    return {
        "jpeg": encoded(gray, "JPEG"),
        "jpeg, progressive": encoded(gray, "JPEG", progressive=True),
        "jpeg, RGB": encoded(color, "JPEG"),
        "jpeg, CMYK": encoded(color.convert("CMYK"), "JPEG"),
        "png": encoded(gray, "PNG"),
        "png, 1 bit": encoded(gray.convert("1"), "PNG"),
        "png, palette": encoded(color.quantize(200), "PNG"),
        "png, palette of 2 bits": encoded(color.quantize(4), "PNG", bits=2),
        "png, palette of 4 bits": encoded(color.quantize(16), "PNG", bits=4),
        "png, RGB": encoded(color, "PNG"),
        "png, RGBA": encoded(with_alpha, "PNG"),
        "png, gray and alpha": encoded(gray_with_alpha, "PNG"),
        "tiff": encoded(gray, "TIFF"),
        "tiff, LZW": encoded(gray, "TIFF", compression="tiff_lzw"),
        "tiff, JPEG": encoded(gray, "TIFF", compression="jpeg"),
        "tiff, RGB": encoded(color, "TIFF"),
        "tiff, 1 bit, G4": encoded(gray.convert("1"), "TIFF", compression="group4"),
        "tiff, white is 0": encoded(gray, "TIFF", tiffinfo={262: 0}),
        "webp": encoded(gray, "WEBP", lossless=True),
        "webp, lossy": encoded(color, "WEBP"),
        "bmp": encoded(gray, "BMP"),
        "bmp, RGB": encoded(color, "BMP"),
        "jpeg 2000": encoded(gray, "JPEG2000"),
        "jpeg 2000, codestream": encoded(gray, "JPEG2000", no_jp2=True),
        "gif": encoded(gray, "GIF"),
        "pgm": encoded(gray, "PPM"),
    }


@pytest.mark.parametrize("name", ["a", "a.jpg", "a.png", "a.dcm", "a.b.TIF", ".hidden"])
def test_the_content_decides_not_the_name(tmp_path: Path, name: str) -> None:
    for kind, data in in_any_format().items():
        (tmp_path / name).write_bytes(data)
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.convert("L"))
        assert np.array_equal(gray_of(tmp_path / name), expected), kind
    raw_dicom(tmp_path / name, PIXELS)
    assert np.array_equal(gray_of(tmp_path / name), PIXELS)


def test_lossless_formats_keep_every_pixel(tmp_path: Path) -> None:
    kinds = in_any_format()
    for kind in ("png", "tiff", "tiff, LZW", "tiff, white is 0", "webp", "bmp", "jpeg 2000", "gif", "pgm"):
        (tmp_path / "a").write_bytes(kinds[kind])
        assert np.array_equal(gray_of(tmp_path / "a"), PIXELS), kind


def png(depth: int, color: int, rows: list[bytes], width: int) -> bytes:
    """A PNG file of any depth, also of those that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [2, 4])
def test_png_of_few_bits(tmp_path: Path, bits: int, rng: np.random.Generator) -> None:
    values = rng.integers(0, 2**bits, (24, 32), np.uint8)
    spread = np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(24, -1)
    (tmp_path / "a").write_bytes(png(bits, 0, [np.packbits(row).tobytes() for row in spread], 32))
    assert np.array_equal(gray_of(tmp_path / "a"), values * (255 // (2**bits - 1)))


@pytest.mark.parametrize(("highest", "white"), [(4095, 4095), (65535, 65535), (20000, 65535)])
def test_16_bit_gray_keeps_its_levels(tmp_path: Path, highest: int, white: int) -> None:
    values = np.linspace(0, highest, 3500).reshape(50, 70).astype(np.uint16)
    expected = np.rint(values / white * 255).astype(np.uint8)
    assert len(np.unique(expected)) > 70
    for suffix in ("png", "tif", "jp2"):
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
        if suffix == "jp2":  # always 16 bits, as written here
            with Image.open(tmp_path / "a.jp2") as image:
                assert np.array_equal(np.asarray(image), values)
        assert np.array_equal(gray_of(tmp_path / f"a.{suffix}"), expected), suffix


@pytest.mark.parametrize(("color", "samples"), [(2, 3), (4, 2), (6, 4)])
def test_16_bits_with_colors_or_alpha(tmp_path: Path, color: int, samples: int) -> None:
    values = np.repeat(np.linspace(0, 65535, 3500).reshape(50, 70, 1), samples, axis=2).astype(">u2")
    (tmp_path / "a").write_bytes(png(16, color, [row.tobytes() for row in values], 70))
    assert np.array_equal(gray_of(tmp_path / "a"), (values[..., 0] >> 8).astype(np.uint8))
    # Pillow keeps the upper 8 bits, which have 16 levels here.
    (tmp_path / "a").write_bytes(png(16, color, [row.tobytes() for row in (values // 16).astype(">u2")], 70))
    assert "save it as 16-bit gray" in refused(tmp_path / "a")


@pytest.mark.parametrize("name", ["TIFF", "GIF", "PNG", "WEBP"])
def test_several_frames_are_refused(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(np.roll(PIXELS, 9 * number, 0)).convert("RGB") for number in range(3)]
    frames[0].save(tmp_path / "a", name, save_all=True, append_images=frames[1:])
    assert refused(tmp_path / "a") == "3 frames"
    with pytest.raises(UnreadableImage, match="3 frames"):
        to_square(Image.open(tmp_path / "a"))


def test_the_first_image_of_an_mpo_file_counts(tmp_path: Path) -> None:
    first, second = Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second], quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO" and image.n_frames == 2
    assert np.abs(gray_of(tmp_path / "a.jpg").astype(int) - PIXELS).mean() < 3


@pytest.mark.parametrize("kind", ["jpeg", "jpeg, progressive", "png", "tiff", "tiff, LZW", "webp", "bmp", "jpeg 2000"])
def test_truncated_files_are_refused(tmp_path: Path, kind: str, rng: np.random.Generator) -> None:
    image = Image.fromarray(rng.integers(0, 256, (150, 130), np.uint8))
    name, *rest = kind.split(", ")
    options = {"LZW": {"compression": "tiff_lzw"}, "progressive": {"progressive": True}}.get(
        rest[0] if rest else "", {}
    )
    options |= {"lossless": True} if name == "webp" else {}
    data = encoded(image, {"jpeg 2000": "JPEG2000"}.get(name, name.upper()), **options)
    for share in (0.3, 0.7, 0.97):
        (tmp_path / "a").write_bytes(data[: int(len(data) * share)])
        refused(tmp_path / "a")


def test_too_many_pixels_are_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for data in (encoded(Image.fromarray(PIXELS), "PNG"), encoded(Image.fromarray(PIXELS), "JPEG")):
        (tmp_path / "a").write_bytes(data)
        assert "exceeds limit of 2000 pixels" in refused(tmp_path / "a")
    raw_dicom(tmp_path / "a", PIXELS)
    assert refused(tmp_path / "a") == "70x50 pixels are more than 2000"


@pytest.mark.parametrize(
    "data",
    [b"plain text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\x08\0\x05\0 no DICOM" * 40, b"\0" * 300],
)
def test_what_is_no_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    assert refused(tmp_path / "a.jpg") in ("no image in a known format", "no DICOM file")


def test_a_16_bit_mask_is_read_as_an_8_bit_one(tmp_path: Path) -> None:
    mask = PIXELS > 100
    for number, values in enumerate((mask.astype(np.uint8) * 255, mask.astype(np.uint16) * 65535, mask)):
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    first, *others = (read_mask(tmp_path / f"{number}.png") for number in range(3))
    assert 0.1 < first.mean() < 0.9 and all(np.array_equal(first, other) for other in others)


def test_premultiplied_gray_with_alpha() -> None:
    opaque = Image.fromarray(PIXELS).convert("LA")
    assert np.array_equal(to_square(opaque.convert("La")), to_square(Image.fromarray(PIXELS)))
