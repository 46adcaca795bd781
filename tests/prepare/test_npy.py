import errno
from pathlib import Path

import numpy as np
import pytest

from prior_fast.prepare.npy import GrayLevels, write_npy


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_the_file_is_numpys(tmp_path: Path, dtype: type) -> None:
    array = np.arange(60).reshape(10, 3, 2).astype(dtype)
    write_npy(tmp_path / "a.npy", array.dtype, array.shape, [array[:4], array[4:4], array[4:]])
    np.save(tmp_path / "b.npy", array)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.parametrize("blocks", [[np.zeros((3, 2))], [np.zeros((2, 2)), np.zeros((1, 3))], [np.zeros((4, 2), int)]])
def test_blocks_that_do_not_fit(tmp_path: Path, blocks: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"a\.npy: "):
        write_npy(tmp_path / "a.npy", np.dtype(np.float64), (4, 2), blocks)


def test_a_full_disk_has_its_number() -> None:
    image = np.zeros((100, 224, 224), np.uint8)
    with pytest.raises(OSError) as caught:
        write_npy(Path("/dev/full"), image.dtype, image.shape, [image])
    assert caught.value.errno == errno.ENOSPC


def test_mean_and_deviation_of_blocks() -> None:
    images, levels = np.random.default_rng(0).integers(0, 256, (5, 7, 9), np.uint8), GrayLevels()
    assert levels.mean_and_std() == (0, 0)
    for block in (images[:1], images[1:]):
        levels.add(block)
    assert levels.mean_and_std() == pytest.approx((images.mean() / 255, images.std() / 255))
