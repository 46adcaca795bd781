"""The file of a prepared chunk: a record, images, and a digest of both, so that any damage is noticed.

Layout: 32 bytes SHA-256 of all that follows, 8 bytes length of the record, the record as JSON, the images' bytes.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from prior_fast.errors import RunError
from prior_fast.files import atomic_path
from prior_fast.radiology.xray import IMAGE_SIZE

SUFFIX = ".bin"
_DIGEST, _LENGTH = 32, 8


def write_chunk(path: Path, record: Any, images: np.ndarray) -> None:
    """Write a chunk, whole or not at all.

    Args:
        record: a value that JSON has.
        images: uint8 [n, 224, 224].

    Raises:
        RunError: the disk is full.
        OSError: another failure.
    """
    text = json.dumps(record).encode()
    parts = (len(text).to_bytes(_LENGTH, "little"), text, np.ascontiguousarray(images).data)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    with atomic_path(path) as partial, partial.open("wb") as file:
        for part in (digest.digest(), *parts):
            file.write(part)


def sound_chunk(path: Path) -> tuple[Any, np.ndarray] | None:
    """The record and the images, uint8 [n, 224, 224], read-only; None if the file is absent or damaged."""
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError:
        return None
    rest = memoryview(data)[_DIGEST:]
    if len(rest) < _LENGTH or hashlib.sha256(rest).digest() != data[:_DIGEST]:
        return None
    # From here on the content is what `write_chunk` wrote.
    end = _LENGTH + int.from_bytes(rest[:_LENGTH], "little")
    images = np.frombuffer(rest[end:], np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)
    return json.loads(bytes(rest[_LENGTH:end])), images


def read_chunk(path: Path) -> tuple[Any, np.ndarray]:
    """The record and the images of a chunk that this command has made or found sound before.

    Raises:
        RunError: it was damaged since.
    """
    found = sound_chunk(path)
    if found is None:
        raise RunError(f"{path} was removed or damaged just now; start the same command again, which makes it again")
    return found


def read_record(path: Path) -> Any:
    """The record of such a chunk without its images. The digest is not compared.

    Raises:
        RunError: it was damaged since.
    """
    try:
        with path.open("rb") as file:
            file.seek(_DIGEST)
            return json.loads(file.read(int.from_bytes(file.read(_LENGTH), "little")))
    except (OSError, ValueError, OverflowError, MemoryError, RecursionError):
        return read_chunk(path)[0]


def remove_chunks(folder: Path, stem: str) -> None:
    """Remove the chunks of `folder` whose names begin with `stem`, also those that older versions made."""
    for suffix in (SUFFIX, ".npz"):
        for path in folder.glob(f"{stem}-*{suffix}"):
            path.unlink()


def stored_bytes(folder: Path, stem: str, numbers: Iterable[int]) -> int:
    """The size of the chunks that are there of those with these numbers."""
    wanted = {f"{number:06d}" for number in numbers}
    paths = [path for path in folder.glob(f"{stem}-*{SUFFIX}") if path.name.split("-")[1] in wanted]
    return sum(path.stat().st_size for path in paths)
