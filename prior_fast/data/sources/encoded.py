"""The full-size files that a prepared dataset was made from, as bytes."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.radiology.study import Tree
from prior_fast.radiology.xray import UnreadableImage, read_xray

_END_OF_IMAGE = b"\xff\xd9"
# Some writers pad files after the end of the image.
_TAIL = 1024


class EncodedImages:
    """Full-size files by image row. A file that can't be decoded is replaced by its prepared image, and counted.

    Attributes:
        replaced: number of replacements, counted at each read.
        broken: rows whose files can't be decoded.

    Raises:
        UsageError: the folder does not hold the files that the dataset was prepared from.
    """

    def __init__(self, dataset: PreparedDataset, folder: Path) -> None:
        self.dataset, self.folder = dataset, folder
        self.replaced = 0
        self.broken: set[int] = set()
        tree = Tree(folder) if (folder / "files").is_dir() else Tree(folder, "")
        self._paths = image_paths(dataset, tree)
        first = next(iter(self._paths.values()))
        if not (folder / first).is_file():
            raise UsageError(f"data.jpegs={folder}: it has no {first}; give the folder that was prepared (--images)")

    def path(self, row: int) -> Path:
        """The file of an image."""
        return self.folder / self._paths[row]

    def read(self, rows: np.ndarray) -> list[np.ndarray]:
        """The bytes of a file for each row, uint8 [.]."""
        return [np.frombuffer(self._bytes(int(row)), np.uint8) for row in rows]

    def find_broken(self, rows: Iterable[int]) -> set[int]:
        """The rows whose files can't be decoded completely. From now on their images are replaced."""
        found = {row for row in rows if row not in self.broken and not _decodes(self.path(row))}
        self.broken |= found
        return found

    def _bytes(self, row: int) -> bytes:
        if row not in self.broken:
            try:
                data = self.path(row).read_bytes()
            except OSError:
                data = b""
            # A truncated file, the usual damage, would be decoded to an image whose last lines are gray.
            if _END_OF_IMAGE in data[-_TAIL:]:
                return data
            self.broken.add(row)
        self.replaced += 1
        buffer = io.BytesIO()
        Image.fromarray(self.dataset.image(row)).save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()


def image_paths(dataset: PreparedDataset, tree: Tree) -> dict[int, str]:
    """The path of each image of the dataset's split, relative to the tree's root, by its row."""
    filters = None if dataset.split is None else [("split", "==", dataset.split)]
    table = pq.read_table(dataset.root / "manifest.parquet", columns=["dicom_ids"], filters=filters)
    return {
        int(dataset.image_begin[study]) + place: tree.image(
            int(dataset.subject_ids[study]), int(dataset.study_ids[study]), dicom_id
        )
        for study, dicom_ids in enumerate(table["dicom_ids"].to_pylist())
        for place, dicom_id in enumerate(dicom_ids)
    }


def _decodes(path: Path) -> bool:
    try:
        read_xray(path)
    except UnreadableImage:
        return False
    return True
