"""Preparing a chunk of studies: reading reports, decoding images, writing one file that a later run can reuse.

The name of a chunk's file contains the chunk's number and a fingerprint of its inputs (the studies, the options, size
and time of each file). An existing file is therefore up to date, and a changed input gives another name.
"""

import base64
import hashlib
import json
import time
import zipfile
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pydicom

from prior_fast.files import atomic_path
from prior_fast.prepare.studies.plan import StudyPlan
from prior_fast.prepare.studies.report_of_study import read_sentences
from prior_fast.radiology.masks import box_mask, encode_mask, read_mask
from prior_fast.radiology.study import AnnotationRow, Rejection, Study
from prior_fast.radiology.xray import EXACT, IMAGE_SIZE, UnreadableImage, read_xray

# Increase this number whenever the same files would give another chunk.
RULES_VERSION = 2
STUDIES_PER_CHUNK = 64


@dataclass(frozen=True)
class ChunkTask:
    """A chunk of studies with everything that another process needs to prepare it."""

    index: int
    studies: tuple[Study, ...]
    images: Path
    reports: Path
    min_sentences: int
    folder: Path
    decode: str
    sections: str


@dataclass(frozen=True)
class ChunkResult:
    """The file of a prepared chunk, and the facts that the parent process needs before it reads the file.

    Attributes:
        other_encoding: reports that are not UTF-8 and were read in another encoding.
    """

    path: Path
    studies: int
    decoded: int
    seconds: float
    first_broken: Rejection | None
    other_encoding: int = 0


def make_tasks(
    plan: StudyPlan, min_sentences: int, folder: Path, decode: str, sections: str, size: int = STUDIES_PER_CHUNK
) -> list[ChunkTask]:
    """Cut the studies into chunks of `size`, in their order."""
    settings = (plan.images, plan.reports, min_sentences, folder, decode, sections)
    return [
        ChunkTask(index, tuple(plan.studies[begin : begin + size]), *settings)
        for index, begin in enumerate(range(0, len(plan.studies), size))
    ]


def fingerprint(task: ChunkTask) -> str:
    """SHA-256 of the chunk's inputs. Files contribute their path, size and modification time, not their bytes."""
    facts: list[Any] = [RULES_VERSION, PIL.__version__, pydicom.__version__, IMAGE_SIZE, task.min_sentences]
    facts += [task.decode, task.sections]
    for study in task.studies:
        facts += [study.split, (study.subject_id, study.study_id), study.name, study.subject]
        facts += [[astuple(row) for row in study.annotations], astuple(study.report)]
        if study.report.path:
            facts.append(_stat(task.reports, study.report.path))
        facts += [(image.image_id, _stat(task.images, image.path)) for image in study.images]
        facts += [_stat(task.images, row.mask) for row in study.annotations if row.mask]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def chunk_path(task: ChunkTask) -> Path:
    """The file of this chunk, whether or not it is prepared yet."""
    # The name also contains the decode mode, for `decoded_as`.
    decode = "" if task.decode == EXACT else f"{task.decode}-"
    return task.folder / f"chunk-{task.index:06d}-{decode}{fingerprint(task)[:32]}.npz"


def decoded_as(name: str) -> str:
    """The decode mode of a chunk, from the name of its file."""
    return parts[2] if len(parts := name.split("-")) == 4 else EXACT


def prepare_chunk(task: ChunkTask) -> ChunkResult:
    """Prepare the chunk and write its file, unless an earlier run left an undamaged one."""
    path = chunk_path(task)
    record = sound_record(path)
    if record is None:
        begin = time.perf_counter()
        record, images = _prepare(task)
        record["seconds"] = time.perf_counter() - begin
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, images=images, record=np.frombuffer(json.dumps(record).encode(), np.uint8))
    broken = next((Rejection(**row) for row in record["rejected"] if row["broken"]), None)
    facts = (record["decoded"], record["seconds"], broken, record["other_encoding"])
    return ChunkResult(path, len(task.studies), *facts)


def read_record(path: Path) -> dict[str, Any]:
    """The record in a chunk's file: "studies", "annotations", "rejected", "decoded", "seconds"."""
    with np.load(path, allow_pickle=False) as chunk:
        return json.loads(chunk["record"].tobytes())


def read_images(path: Path) -> np.ndarray:
    """The images of a chunk's file, uint8 [n, 224, 224], in the order of its studies."""
    with np.load(path, allow_pickle=False) as chunk:
        return chunk["images"]


def sound_record(path: Path) -> dict[str, Any] | None:
    """Like `read_record`, but also checks the images; None if the file is missing or damaged."""
    if not path.exists():
        return None
    try:
        read_images(path)  # checks their CRC
        return read_record(path)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _prepare(task: ChunkTask) -> tuple[dict[str, Any], np.ndarray]:
    studies: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    rejected: list[Rejection] = []
    images: list[np.ndarray] = []
    decoded, other_encoding = 0, 0
    for study in task.studies:
        report = read_sentences(task.reports, study, task.min_sentences, task.sections)
        other_encoding += report.other_encoding
        if report.rejection:
            rejected.append(report.rejection)
            continue
        kept: dict[str, tuple[int, tuple[int, int]]] = {}
        for image in study.images:
            try:
                pixels, size = read_xray(task.images / image.path, task.decode)
            except UnreadableImage as error:
                rejected.append(study.reject(image.path, "image not readable", f"({error})", broken=True))
                continue
            kept[image.image_id] = (len(images), size)
            images.append(pixels)
        decoded += len(kept)
        if not kept:
            rejected.append(study.reject(study.place, "no readable frontal image", whole=True))
            continue
        studies.append({"study_id": study.study_id, "dicom_ids": list(kept), "sentences": report.sentences})
        for row in study.annotations:
            if row.dicom_id in kept:
                marked = _annotation(task.images, study, row, *kept[row.dicom_id])
                if isinstance(marked, Rejection):
                    rejected.append(marked)
                else:
                    annotations.append(marked)
    stacked = np.stack(images) if images else np.zeros((0, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    rejected_rows = [asdict(row) for row in rejected]
    record = {"studies": studies, "annotations": annotations, "rejected": rejected_rows, "decoded": decoded}
    return {**record, "other_encoding": other_encoding}, stacked


def _annotation(
    folder: Path, study: Study, row: AnnotationRow, image_row: int, size: tuple[int, int]
) -> dict[str, Any] | Rejection:
    """The annotation in pixels of the resized image; `image_row` is the row within the chunk."""
    across, down = IMAGE_SIZE / size[0], IMAGE_SIZE / size[1]
    box = {"x": row.x * across, "y": row.y * down, "width": row.width * across, "height": row.height * down}
    texts = {"finding": row.finding, "side": row.side, "severity": row.severity}
    try:
        mask = read_mask(folder / row.mask) if row.mask else box_mask(**box)
    except UnreadableImage as error:
        return study.reject(row.mask, "mask not readable", f"({error})", broken=True)
    encoded = base64.b64encode(encode_mask(mask)).decode()
    return {"study_id": study.study_id, "image_row": image_row, **texts, **box, "mask": encoded}


def _stat(folder: Path, relative: str) -> list[Any]:
    try:
        facts = (folder / relative).stat()
    except OSError:
        return [relative, None, None]
    return [relative, facts.st_size, facts.st_mtime_ns]
