"""JPEG files that libjpeg decodes with a warning at most: damage is found, and whole files are never refused."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prior_fast.radiology.jpeg_damage import damage
from prior_fast.radiology.jpeg_markers import read_markers
from prior_fast.radiology.jpeg_walk import find_damage
from prior_fast.radiology.xray import UnreadableImage, read_xray
from tests.prepare.labelled.trees import xray

PICTURE = Image.fromarray(
    np.clip(xray(2, 420, 380).astype(int) + np.random.default_rng(0).integers(-20, 20, (420, 380)), 0, 255).astype(
        np.uint8
    )
)


def encoded(image: Image.Image = PICTURE, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 92, **options})
    return buffer.getvalue()


def scan_of(data: bytes) -> tuple[int, int]:
    scan = read_markers(data).scans[0]
    return scan.begin, scan.end


def overwritten(data: bytes, share: float, new: bytes) -> bytes:
    begin, end = scan_of(data)
    place = begin + int((end - begin - len(new)) * share)
    return data[:place] + new + data[place + len(new) :]


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(UnreadableImage) as caught:
        read_xray(path)
    return str(caught.value)


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_blocks": 5}], ids=str)
@pytest.mark.parametrize("share", [0.05, 0.4, 0.8, 0.98])
def test_a_scan_that_is_cut_off_before_the_end_mark(share: float, options: dict[str, object], tmp_path: Path) -> None:
    data = encoded(**options)
    begin, end = scan_of(data)
    message = refused(tmp_path / "a", data[: begin + int((end - begin) * share)] + b"\xff\xd9")
    row = int(message.removeprefix("damaged in row ").split()[0])
    assert message.endswith(f"of {PICTURE.height}: the data end there") and abs(row / PICTURE.height - share) < 0.15
    # libjpeg fills the rest with gray.
    with Image.open(tmp_path / "a") as image:
        assert np.ptp(np.asarray(image)[-1, -8:]) == 0


@pytest.mark.parametrize("color", [False, True])
def test_color_files_that_are_cut_off(color: bool, tmp_path: Path) -> None:
    data = encoded(PICTURE.convert("RGB") if color else PICTURE, subsampling=2)
    begin, end = scan_of(data)
    assert "damaged in row" in refused(tmp_path / "a", data[: (begin + end) // 2] + b"\xff\xd9")


@pytest.mark.parametrize("byte", [0, 0x55, 0xF6])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_sector_of_one_byte(share: float, byte: int, tmp_path: Path) -> None:
    assert refused(tmp_path / "a", overwritten(encoded(), share, bytes([byte]) * 4096)).startswith("damaged ")


@pytest.mark.parametrize("seed", range(8))
def test_a_sector_of_garbage(seed: int, tmp_path: Path) -> None:
    garbage = np.random.default_rng(seed).bytes(4096)
    assert refused(tmp_path / "a", overwritten(encoded(), 0.1 * seed + 0.1, garbage)).startswith("damaged ")


def test_restart_markers_out_of_order(tmp_path: Path) -> None:
    data = encoded(restart_marker_blocks=5)
    begin, _ = scan_of(data)
    second = data.index(b"\xff\xd1", begin)
    assert "not in their order" in refused(tmp_path / "a", data[:second] + b"\xff\xd5" + data[second + 2 :])
    assert "a scan that has none" in refused(tmp_path / "a", overwritten(encoded(), 0.5, b"\xff\xd3"))


def test_whole_files_of_every_kind_are_read(tmp_path: Path) -> None:
    """Also images that end in the gray of libjpeg's filling, and even ones, whose codes repeat."""
    pictures = [PICTURE, Image.new("L", (900, 900), 0), Image.new("L", (300, 200), 128), Image.new("RGB", (90, 40))]
    pictures += [PICTURE.resize(size) for size in ((1, 1), (8, 8), (9, 17), (16, 100))]
    pictures += [PICTURE.convert("RGB"), PICTURE.convert("CMYK")]
    kinds = [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}]
    for picture in pictures:
        for kind in kinds:
            for quality, subsampling in ((5, 0), (75, 1), (100, 2)):
                data = encoded(picture, quality=quality, subsampling=subsampling, **kind)
                jpeg = read_markers(data)
                assert damage(data, jpeg) is None, kind
                assert not jpeg.sequential or find_damage(data, jpeg) is None, kind
                (tmp_path / "a").write_bytes(data)
                assert read_xray(tmp_path / "a")[1] == picture.size


def test_bytes_after_the_end_and_between_the_parts_are_no_damage(tmp_path: Path) -> None:
    data = encoded()
    for changed in (data + bytes(600), data[:2] + b"\xff\xff" + data[2:]):
        (tmp_path / "a").write_bytes(changed)
        assert np.array_equal(read_xray(tmp_path / "a")[0], np.asarray(_resized(data)))


def test_real_files_are_whole(real_cxr: Path) -> None:
    files = sorted(real_cxr.glob("files/*/*/*/*.jpg"))
    assert len(files) > 100
    for path in files:
        data = path.read_bytes()
        jpeg = read_markers(data)
        assert jpeg.sequential and damage(data, jpeg) is None, path
    for path in files[::20]:
        data = path.read_bytes()
        assert find_damage(data, read_markers(data)) is None, path


def _resized(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("L").resize((224, 224), Image.Resampling.BILINEAR)
