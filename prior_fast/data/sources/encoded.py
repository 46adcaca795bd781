"""The full-size files that a prepared dataset was made from, as bytes."""

import io
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image

from prior_fast.console import stderr
from prior_fast.data.columns import TEXTS
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.radiology.jpeg_damage import damage
from prior_fast.radiology.jpeg_markers import read_markers
from prior_fast.radiology.limits import check_pixels
from prior_fast.radiology.study import Tree
from prior_fast.radiology.xray import UnreadableImage, read_xray

# How JPEG and PNG files begin and end.
_JPEG, _END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"
_PNG, _END_OF_PNG = b"\x89PNG\r\n\x1a\n", b"IEND\xae\x42\x60\x82"
_PNG_SIDES = (16, 20)
_PNG_BITS, _FEW_BITS = 24, (b"\1", b"\2", b"\4", b"\x08")  # the byte with the bits of a sample
# physionet.org/files/mimic-cxr-jpg/2.1.0: the tree is at most so many folders below the one that was prepared.
_DEPTH = 3
# Some writers pad files after the end of the image.
_TAIL = 1024
# Files that are looked at for their format before training; more than one, since the first may be broken.
_LOOKED_AT = 16
# Lines about single files.
_NAMED = 10


class EncodedImages:
    """Full-size files by image row: JPEG, and PNG of up to 8 bits, which DALI decodes to the prepared gray levels.

    A file that can't be decoded, is damaged or has another format is replaced by its prepared image, and counted. A
    line names it once.

    Attributes:
        replaced: number of replacements, counted at each read.
        broken: rows whose files can't be used.

    Raises:
        UsageError: the folder does not hold the files that the dataset was prepared from, or they have another format.
    """

    def __init__(self, dataset: PreparedDataset, folder: Path) -> None:
        self.dataset, self.folder = dataset, folder
        self.replaced = 0
        self.broken: set[int] = set()
        self._paths = dataset.image_paths or mimic_paths(dataset, folder)
        first = next(iter(self._paths.values()))
        # `prior-fast prepare mimic` takes the folder files and any folder above the tree too.
        below = (base for depth in range(1, _DEPTH + 1) for base in sorted(folder.glob("/".join("*" * depth))))
        bases = chain([folder], [folder.parent] if folder.name == "files" else [], below)
        found = next((base for base in bases if (base / first).is_file()), None)
        if found is None:
            raise UsageError(f"data.jpegs={folder}: it has no {first}; give the folder that was prepared (--images)")
        self.folder = found
        self._refuse_other_formats(folder)

    def path(self, row: int) -> Path:
        """The file of an image."""
        return self.folder / self._paths[row]

    def read(self, rows: np.ndarray) -> list[np.ndarray]:
        """The bytes of a file for each row, uint8 [.]."""
        return [np.frombuffer(self._bytes(int(row)), np.uint8) for row in rows]

    def find_broken(self, rows: Iterable[int]) -> set[int]:
        """The rows whose files can't be decoded completely. From now on their images are replaced."""
        found = {row for row in rows if row not in self.broken and not _decodes(self.path(row))}
        for row in found:
            self._reject(row, "can't be decoded")
        return found

    def was_replaced(self, row: int, reason: str) -> None:
        """Count an image that was replaced after it was decoded. From now on its file is not decoded."""
        self.replaced += 1
        self._reject(row, reason)

    def _reject(self, row: int, reason: str) -> None:
        if row in self.broken:
            return
        self.broken.add(row)
        if len(self.broken) <= _NAMED:
            stderr.print(f"{self.path(row)}: {reason}; the prepared image is used instead")
        elif len(self.broken) == _NAMED + 1:
            stderr.print("more files can't be used; they are only counted")

    def _refuse_other_formats(self, given: Path) -> None:
        """Refuse to train if the first image that can be decoded would be replaced, since all others would be too."""
        for row in islice(self._paths, _LOOKED_AT):
            if is_decodable(self._read(row)):
                return
            if _decodes(self.path(row)):
                raise UsageError(
                    f"data.jpegs={given}: {self._paths[row]} is no JPEG, and no PNG of 8 bits or fewer; use the "
                    "prepared images (leave data.jpegs out)"
                )

    def _read(self, row: int) -> bytes:
        try:
            return self.path(row).read_bytes()
        except OSError:
            return b""

    def _bytes(self, row: int) -> bytes:
        if row not in self.broken:
            data = self._read(row)
            reason = _unusable(data)
            if reason is None:
                return data
            self._reject(row, reason)
        self.replaced += 1
        buffer = io.BytesIO()
        Image.fromarray(self.dataset.image(row)).save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()


def is_decodable(data: bytes) -> bool:
    """Whether a file of these bytes is a JPEG, or a PNG of up to 8 bits, by its first bytes.

    DALI maps more bits to gray levels in another way than `read_xray`.
    """
    return data.startswith(_JPEG) or (data.startswith(_PNG) and data[_PNG_BITS : _PNG_BITS + 1] in _FEW_BITS)


def is_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG file has its end."""
    return (_END_OF_JPEG if data.startswith(_JPEG) else _END_OF_PNG) in data[-_TAIL:]


def _unusable(data: bytes) -> str | None:
    """Why a file is replaced before it is decoded; None if it is not.

    A damaged file would be decoded to an image that is gray or noise from somewhere on.
    """
    if not is_decodable(data):
        return "is no whole JPEG, and no PNG of 8 bits or fewer"
    if not is_whole(data):
        return "is cut off"
    try:
        if not data.startswith(_JPEG):
            check_pixels(*(int.from_bytes(data[at : at + 4], "big") for at in _PNG_SIDES))
            return None
        jpeg = read_markers(data)
        if jpeg.kind is not None:
            check_pixels(jpeg.width, jpeg.height)
        return damage(data, jpeg)
    except UnreadableImage as error:
        return str(error)


def mimic_paths(dataset: PreparedDataset, folder: Path) -> dict[int, str]:
    """The path of each image of the dataset's split in MIMIC-CXR's tree, by its row: for datasets without paths."""
    tree = Tree(folder) if (folder / "files").is_dir() else Tree(folder, "")
    filters = None if dataset.split is None else [("split", "==", dataset.split)]
    table = dataset.read_manifest({"dicom_ids": TEXTS}, filters)
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
