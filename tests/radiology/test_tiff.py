"""TIFF files of every kind: those that Pillow reads, those that it does not, and those that are refused."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prior_fast.radiology.gray_levels import gray_levels
from tests.radiology.full_size import gray_of, refused


def write_tiff(
    path: Path,
    values: np.ndarray,
    order: str = "<",
    deflate: bool = False,
    tile: int = 0,
    strip: int = 7,
    big: bool = False,
    **changes: int,
) -> None:
    """A TIFF file of one sample, in strips or tiles, with tags changed by name. Written by the TIFF 6.0 specification.

    Args:
        big: BigTIFF, with offsets of 64 bits.
    """
    values = values.astype(values.dtype.newbyteorder(order))
    height, width = values.shape
    parts = [values[top : top + strip] for top in range(0, height, strip)]
    if tile:
        padded = np.pad(values, ((0, -height % tile), (0, -width % tile)))
        tops, lefts = range(0, height, tile), range(0, width, tile)
        parts = [padded[top : top + tile, left : left + tile] for top in tops for left in lefts]
    data = [zlib.compress(part.tobytes()) if deflate else part.tobytes() for part in parts]
    names = {
        "width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "orientation": 274,
        "samples": 277, "predictor": 317, "kind": 339,
    }  # fmt: skip
    facts = {"width": width, "height": height, "bits": values.dtype.itemsize * 8, "compression": 8 if deflate else 1}
    facts |= {"photometric": 1, "samples": 1, "kind": {"u": 1, "i": 2, "f": 3}[values.dtype.kind]} | changes
    entries = {names[name]: [value] for name, value in facts.items()}
    start = 16 if big else 8
    offsets = [start + sum(map(len, data[:number])) for number in range(len(data))]
    entries |= {324: offsets, 325: [len(one) for one in data], 322: [tile], 323: [tile]} if tile else {
        273: offsets, 279: [len(one) for one in data], 278: [strip]
    }  # fmt: skip
    body = b"".join(data)
    body += b"\0" * (-len(body) % 8)
    long, count = ("Q", "Q") if big else ("I", "H")
    directory, room = start + len(body), 8 if big else 4
    after = directory + struct.calcsize(order + count) + len(entries) * (20 if big else 12) + room
    table, extra = struct.pack(order + count, len(entries)), b""
    for tag, numbers in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(packed) > room:
            packed, extra = struct.pack(order + long, after + len(extra)), extra + packed
        table += struct.pack(order + "HH" + long, tag, 4, len(numbers)) + packed.ljust(room, b"\0")
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, directory) if big else struct.pack(order + "HI", 42, directory)
    path.write_bytes(mark + head + body + table + struct.pack(order + long, 0) + extra)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float32"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_a_tiff_and_an_array_are_the_same_image(tmp_path: Path, dtype: str, compression: str | None) -> None:
    lowest, highest = {"int8": (-100, 90), "int16": (-1000, 3000), "uint32": (0, 3e9)}.get(dtype, (-70000, 70000))
    values = np.linspace(lowest, highest, 3500).reshape(50, 70).astype(dtype)
    if dtype in ("int16", "uint32"):  # Pillow does not write them
        write_tiff(tmp_path / "a", values)
    else:
        stored = np.uint8 if dtype == "int8" else values.dtype
        image = Image.fromarray(values.view(stored))
        image.save(tmp_path / "a", "TIFF", compression=compression, tiffinfo={339: 2} if dtype == "int8" else {})
    assert np.array_equal(gray_of(tmp_path / "a"), gray_levels(values))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "u8", "i8"])
def test_tiff_of_every_type(tmp_path: Path, dtype: str, order: str) -> None:
    lowest, highest = {"u": (0, 250), "i": (-100, 120), "f": (-700, 900)}[dtype[0]]
    values = np.linspace(lowest, highest, 3500).reshape(50, 70).astype(dtype)
    expected = gray_levels(values)
    for options in (
        {},
        {"deflate": True},
        {"tile": 16},
        {"tile": 32, "deflate": True},
        {"big": order == "<"},
        {"strip": 50},
    ):
        write_tiff(tmp_path / "a", values, order, **options)
        assert np.array_equal(gray_of(tmp_path / "a"), expected), options
    write_tiff(tmp_path / "a", values, order, photometric=0)
    assert np.array_equal(gray_of(tmp_path / "a"), 255 - expected)
    write_tiff(tmp_path / "a", values, order, orientation=6)
    assert np.array_equal(gray_of(tmp_path / "a"), np.rot90(expected, -1))


def test_tiff_of_12_bits_in_12(tmp_path: Path) -> None:
    # Two values in three bytes: Pillow reads this kind.
    values = np.linspace(0, 1500, 3500).reshape(50, 70).astype(np.uint16)
    first, second = values[:, ::2].astype(np.uint32), values[:, 1::2].astype(np.uint32)
    both = first << 12 | second
    packed = np.stack([both >> 16, both >> 8 & 255, both & 255], axis=-1).astype(np.uint8).reshape(50, 105)
    write_tiff(tmp_path / "a", packed, strip=50, width=70, bits=12)
    # 1500 of 4095 are more than a quarter.
    assert np.array_equal(gray_of(tmp_path / "a"), np.rint(values / 4095 * 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"compression": 5}, "Compression 5"),
        ({"predictor": 2}, "is not read"),
        ({"photometric": 32803}, "PhotometricInterpretation 32803"),
        ({"kind": 4}, "SampleFormat 4"),
        ({"bits": 24}, "BitsPerSample 24"),
        ({"samples": 2}, "SamplesPerPixel 2"),
        ({"width": 200_000, "height": 200_000}, "200000x200000 pixels are more than"),
        ({"height": 60}, "8 parts, wanted 9"),
        ({"width": 0}, "size is 0x50"),
    ],
)
def test_tiff_that_is_refused(tmp_path: Path, changes: dict[str, int], reason: str) -> None:
    write_tiff(tmp_path / "a", np.zeros((50, 70)), **changes)
    assert reason in refused(tmp_path / "a")


def test_16_bit_tiff_with_white_as_0(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 3500).reshape(50, 70).astype(np.uint16)
    expected = 255 - np.rint(values / 257).astype(np.uint8)
    for compression in (None, "tiff_lzw"):
        Image.fromarray(values).save(tmp_path / "a.tif", compression=compression, tiffinfo={262: 0})
        assert np.array_equal(gray_of(tmp_path / "a.tif"), expected)
    Image.fromarray((values / 65535).astype(np.float32)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert np.abs(gray_of(tmp_path / "a.tif").astype(int) - expected).max() <= 1


def test_several_pages_of_a_kind_that_pillow_does_not_read(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a", np.linspace(0, 1, 3500).reshape(50, 70))
    data = (tmp_path / "a").read_bytes()
    directory = struct.unpack("<I", data[4:8])[0]
    end = directory + 2 + 12 * struct.unpack("<H", data[directory : directory + 2])[0]
    (tmp_path / "a").write_bytes(data[:end] + struct.pack("<I", directory + 2) + data[end + 4 :])
    assert refused(tmp_path / "a") == "several frames"


def test_tiff_of_two_rare_kinds_is_refused_with_the_reason(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a", np.linspace(0, 1, 3500).reshape(50, 70), ">", big=True)
    assert refused(tmp_path / "a")  # the reason depends on Pillow's version
    # Pillow swaps the bytes of these values.
    write_tiff(tmp_path / "a", np.zeros((50, 70), np.int16), ">", compression=5)
    assert "Compression 5" in refused(tmp_path / "a")


def test_truncated_tiff_of_a_kind_that_pillow_does_not_read(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((50, 70))
    for deflate in (False, True):
        write_tiff(tmp_path / "a", values, deflate=deflate)
        data = bytearray((tmp_path / "a").read_bytes())
        # The directory stands at the end; without the end of the pixels before it, only the count of bytes tells.
        write_tiff(tmp_path / "a", values, deflate=deflate, height=50, strip=50)
        data = bytearray((tmp_path / "a").read_bytes())
        directory = struct.unpack("<I", data[4:8])[0]
        place = data.index(struct.pack("<HHI", 279, 4, 1), directory) + 8
        data[place : place + 4] = struct.pack("<I", struct.unpack("<I", data[place : place + 4])[0] // 2)
        (tmp_path / "a").write_bytes(data)
        assert refused(tmp_path / "a") == "image file is truncated"
        (tmp_path / "a").write_bytes(data[: directory + 40])
        assert "TIFF" in refused(tmp_path / "a")


def test_floats_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    values = np.zeros((50, 70), np.float32)
    values[3, 4] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert refused(tmp_path / "a.tif") == "a pixel is NaN or infinite"
