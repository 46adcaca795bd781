"""Decoding the images of a labelled dataset in chunks, each a file that a later run can use again.

The name of a chunk's file has a fingerprint of its inputs (the rows of the tables, size and time of each file). An
existing file is therefore up to date, and a changed input gives another name.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pydicom

from prior_fast.prepare.chunk_file import SUFFIX, read_record, sound_chunk, write_chunk
from prior_fast.prepare.chunk_file import read_chunk as read_file
from prior_fast.prepare.labelled.labelled_source import Candidate, Decoded
from prior_fast.prepare.paths import irregular
from prior_fast.radiology.limits import limited_pixels, pixel_limit
from prior_fast.radiology.xray import IMAGE_SIZE, UnreadableImage

# Increase this number whenever the same files would give another chunk.
RULES_VERSION = 2
IMAGES_PER_CHUNK = 64
STEM = "decoded"
# Stands for the image of a candidate whose image is not read.
_NO_IMAGE = np.zeros((0, 0), np.uint8)


@dataclass(frozen=True)
class LabelledTask:
    """A chunk of images with everything that another process needs to decode it."""

    index: int
    candidates: tuple[Candidate, ...]
    decode: Callable[[Candidate], Decoded]
    folder: Path
    max_pixels: int


def make_tasks(
    candidates: Sequence[Candidate], decode: Callable[[Candidate], Decoded], folder: Path, size: int = IMAGES_PER_CHUNK
) -> list[LabelledTask]:
    """Cut the candidates into chunks of `size`, in their order. They are read with the pixel limit in force here."""
    return [
        LabelledTask(index, tuple(candidates[begin : begin + size]), decode, folder, pixel_limit())
        for index, begin in enumerate(range(0, len(candidates), size))
    ]


def chunk_path(task: LabelledTask) -> Path:
    """The file of this chunk, whether or not it is made yet."""
    facts: list[Any] = [RULES_VERSION, PIL.__version__, pydicom.__version__, IMAGE_SIZE]
    facts += [_name(task.decode), task.max_pixels]
    for candidate in task.candidates:
        facts += [candidate.image_id, _stat(candidate.path), candidate.annotations]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return task.folder / f"{STEM}-{task.index:06d}-{digest[:32]}{SUFFIX}"


def decode_chunk(task: LabelledTask) -> Path:
    """Decode the images of the chunk and write its file, unless an earlier run left an undamaged one."""
    path = chunk_path(task)
    if sound_chunk(path) is None:
        with limited_pixels(task.max_pixels):
            found = [_decode(task.decode, candidate) for candidate in task.candidates]
        images = [one.image for one in found if isinstance(one, Decoded)]
        stacked = np.stack(images) if images else np.zeros((0, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        write_chunk(path, [_to_json(one) for one in found], stacked)
    return path


def read_found(path: Path) -> list[Decoded | str]:
    """What became of each candidate of a chunk: what was decoded, without its image, or why it can't be used.

    Raises:
        RunError: the chunk was damaged since it was found sound.
    """
    return [entry if isinstance(entry, str) else _from_json(entry) for entry in read_record(path)]


def read_images(path: Path) -> np.ndarray:
    """The images of a chunk, uint8 [n, 224, 224], of the candidates that can be used.

    Raises:
        RunError: the chunk was damaged since it was found sound.
    """
    return read_file(path)[1]


def _decode(decode: Callable[[Candidate], Decoded], candidate: Candidate) -> Decoded | str:
    if reason := irregular(candidate.path):
        return reason
    try:
        return decode(candidate)
    except UnreadableImage as error:
        return str(error)


def _to_json(found: Decoded | str) -> Any:
    if isinstance(found, str):
        return found
    mask = None if found.mask is None else base64.b64encode(found.mask).decode()
    return [found.boxes, mask, found.dropped, found.remarks, found.box_classes]


def _from_json(entry: list[Any]) -> Decoded:
    boxes, mask, dropped, remarks, box_classes = entry
    marks = (tuple(map(tuple, boxes)), None if mask is None else base64.b64decode(mask))
    return Decoded(_NO_IMAGE, *marks, tuple(dropped), tuple(remarks), tuple(box_classes))


def _name(decode: Callable[..., Decoded]) -> list[Any]:
    """What tells one way of decoding from another: the function, and the arguments that are set already."""
    if isinstance(decode, partial):
        return [*_name(decode.func), decode.args, decode.keywords]
    return [decode.__module__, decode.__qualname__]


def _stat(path: Path) -> list[Any]:
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return [str(path), None, None]
    return [str(path), facts.st_size, facts.st_mtime_ns]
