"""Small files that would become large: each is refused, with little memory."""

from pathlib import Path

import pytest
from PIL import Image

from tests.torture.images.bombs import bombs, large_images
from tests.torture.images.reading import faults, read_files

GIGABYTE = 1 << 30


def test_files_that_claim_to_be_large_are_refused(tmp_path: Path) -> None:
    paths = []
    for name, data in bombs().items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    outcomes = read_files(paths, memory=GIGABYTE, timeout=300)
    assert not faults(outcomes)
    assert [one.name for one in outcomes if not one.reason] == []
    # Refused by a check, not by the lack of memory that the test causes.
    assert [one.name for one in outcomes if "memory" in one.reason] == []


def test_lack_of_memory_is_a_reason(tmp_path: Path) -> None:
    Image.new("I;16", (6000, 6000)).save(tmp_path / "a.png", compress_level=1)
    (outcome,) = read_files([tmp_path / "a.png"], memory=40 << 20, timeout=120)
    assert outcome.error == "" and outcome.reason == "it needs more memory than there is"


@pytest.mark.slow
def test_the_largest_images_need_less_than_a_gigabyte(tmp_path: Path) -> None:
    images = large_images()
    images["8 bits"].save(tmp_path / "a.jpg", progressive=True)
    images["8 bits"].convert("RGB").save(tmp_path / "b.png", compress_level=1)
    images["16 bits"].save(tmp_path / "c.png", compress_level=1)
    images["floats"].save(tmp_path / "d.tif")
    outcomes = read_files(sorted(tmp_path.iterdir()), memory=GIGABYTE, timeout=600)
    assert [one.reason + one.error for one in outcomes] == [""] * 4
    assert max(one.peak for one in outcomes) < GIGABYTE
