"""Writing .npy files block by block, so that a full disk is an error with a number and not a signal."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np


def write_npy(path: Path, dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Write an array that is given in blocks of rows.

    numpy.save would report a full disk without the system's error number, and a memory map by SIGBUS.

    Raises:
        ValueError: the blocks do not make an array of this shape.
        OSError: the file can't be written; errno is set.
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    rows = 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            if block.dtype != dtype or block.shape[1:] != shape[1:]:
                raise ValueError(f"{path.name}: a block of {block.dtype} {block.shape} for {dtype} {shape}")
            file.write(np.ascontiguousarray(block).data)
            rows += len(block)
    if rows != shape[0]:
        raise ValueError(f"{path.name}: {rows} rows, not {shape[0]}")


class GrayLevels:
    """The mean and standard deviation of 8-bit images that are added one block after another."""

    def __init__(self) -> None:
        self._counts = np.zeros(256, np.int64)

    def add(self, images: np.ndarray) -> None:
        """Add images of uint8, of any shape."""
        self._counts += np.bincount(images.ravel(), minlength=256)

    def mean_and_std(self) -> tuple[float, float]:
        """In [0, 1]; zeros for no image."""
        values, total = np.arange(256) / 255, max(1, int(self._counts.sum()))
        mean = float(self._counts @ values / total)
        return mean, float(np.sqrt(self._counts @ (values - mean) ** 2 / total))
