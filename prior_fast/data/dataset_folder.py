"""The common parts of prepared and labelled datasets: dataset.json, a manifest and memory-mapped images.

The files are described in docs/architecture.md and docs/datasets.md.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from prior_fast.data.columns import Column, read_columns
from prior_fast.errors import UsageError
from prior_fast.files.sealed import read_sealed

INFO_FILE = "dataset.json"

Verify = Literal["sizes", "full"]


class DatasetFolder:
    """A prepared or labelled dataset on the disk.

    Attributes:
        root: the dataset's folder.
        info: the content of dataset.json.
        images: uint8 [images, 224, 224], memory-mapped.
    """

    def __init__(self, root: Path, info: dict[str, Any]) -> None:
        self.root, self.info = root, info
        self.images: np.ndarray = map_array(root, "images.npy", (info["images"], 224, 224), np.uint8)

    @property
    def image_mean(self) -> float:
        """Mean of the pixels in [0, 1]: of the training images, or of all images of a labelled dataset."""
        return self.info["image_mean"]

    @property
    def image_std(self) -> float:
        """Standard deviation of the pixels of the same images, in [0, 1]."""
        return self.info["image_std"]

    def read_manifest(
        self, wanted: Mapping[str, Column], filters: list[tuple[str, str, Any]] | None = None
    ) -> pa.Table:
        """Read columns of manifest.parquet.

        Raises:
            UsageError: as `prior_fast.data.columns.read_columns`.
        """
        return read_columns(self.root / "manifest.parquet", wanted, filters)


def read_info(root: Path) -> dict[str, Any]:
    """The content of a folder's dataset.json, of a prepared or a labelled dataset.

    Raises:
        UsageError: there is no such file, it is not a JSON object, or it was changed since it was written.
    """
    path = root / INFO_FILE
    if not path.is_file():
        raise UsageError(f"{root} is no prepared dataset: it has no {INFO_FILE}; make one with `prior-fast prepare`")
    try:
        return read_sealed(path)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is not valid JSON ({error}); prepare the dataset again") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} can't be used ({error}); prepare the dataset again") from None


def check_format(root: Path, info: dict[str, Any], name: str, version: int, how: str) -> None:
    """Refuse a dataset of another format or version.

    how: the command that makes a dataset of this format.

    Raises:
        UsageError: the format or the version differs.
    """
    if info.get("format") != name:
        raise UsageError(f"{root} is of format {info.get('format')!r}, not {name!r}; make one with `{how}`")
    if info.get("version") != version:
        raise UsageError(f"{root} has version {info.get('version')}; this prior-fast reads version {version}")


def map_array(root: Path, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """A memory-mapped .npy file of a dataset.

    Raises:
        UsageError: the file can't be read, or has another shape or type.
    """
    path = root / name
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    # A damaged header is a Python expression that can fail in any way.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"{path} can't be read ({reason}); prepare the dataset again") from error
    if array.shape != shape or array.dtype != dtype:
        raise UsageError(
            f"{path} holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}; prepare the dataset again"
        )
    return array


def read_mask(path: Path, row: int, encoded: bytes) -> np.ndarray:
    """The mask bool [224, 224] in a PNG file that a manifest holds.

    path, row: the file and its row, for the message.

    Raises:
        UsageError: it is no such mask.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            mask = np.asarray(image)
    except Exception as error:  # Pillow's decoders raise errors of many types
        raise UsageError(f"{path}: the mask of row {row} can't be read ({error}); prepare the dataset again") from None
    if mask.shape != (224, 224) or mask.dtype != bool:
        raise UsageError(
            f"{path}: the mask of row {row} is {mask.dtype} {mask.shape}, not bool (224, 224); "
            "prepare the dataset again"
        )
    return mask
