"""The common parts of prepared and labelled datasets: dataset.json, a manifest and memory-mapped images.

The files are described in docs/architecture.md and docs/datasets.md.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prior_fast.errors import UsageError
from prior_fast.files import sha256

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

    def read_manifest(self, columns: list[str], filters: list[tuple[str, str, Any]] | None = None) -> pa.Table:
        """Read columns of manifest.parquet.

        Raises:
            UsageError: the file can't be read.
        """
        path = self.root / "manifest.parquet"
        try:
            return pq.read_table(path, columns=columns, filters=filters)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(
                f"{path} can't be read ({str(error).splitlines()[0]}); prepare the dataset again"
            ) from error


def check_files(root: Path, info: dict[str, Any], verify: Verify) -> None:
    """Compare the files of a dataset with its dataset.json.

    Raises:
        UsageError: a file is missing, has another size, or with verify="full" another SHA-256. The message names the
            file.
    """
    for name, facts in info["files"].items():
        path = root / name
        if not path.is_file():
            raise UsageError(f"{path} is missing; prepare the dataset again")
        size = path.stat().st_size
        if size != facts["bytes"]:
            raise UsageError(f"{path} has {size} bytes, not {facts['bytes']}; prepare the dataset again")
        if verify == "full" and sha256(path) != facts["sha256"]:
            raise UsageError(f"{path} was changed (its SHA-256 is not that in {INFO_FILE}); prepare the dataset again")


def read_info(root: Path) -> dict[str, Any]:
    """The content of a folder's dataset.json, of a prepared or a labelled dataset.

    Raises:
        UsageError: there is no such file, or it is not a JSON object.
    """
    path = root / INFO_FILE
    if not path.is_file():
        raise UsageError(f"{root} is no prepared dataset: it has no {INFO_FILE}; make one with `prior-fast prepare`")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON ({error}); prepare the dataset again") from error
    if not isinstance(info, dict):
        raise UsageError(f"{path} does not describe a prepared dataset")
    return info


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
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read ({error}); prepare the dataset again") from error
    if array.shape != shape or array.dtype != dtype:
        raise UsageError(f"{path} holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    return array
