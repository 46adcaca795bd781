"""Preparing a chunk of studies: reading reports, decoding images, writing one file that a later run can reuse.

The name of a chunk's file contains the chunk's number and a fingerprint of its inputs (the studies, the options, size
and time of each file). An existing file is therefore up to date, and a changed input gives another name.
"""

import base64
import hashlib
import json
import time
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pydicom

from prior_fast.prepare.chunk_file import SUFFIX, sound_chunk, write_chunk
from prior_fast.prepare.paths import irregular
from prior_fast.prepare.studies.plan import StudyPlan
from prior_fast.prepare.studies.read_report import read_report
from prior_fast.radiology.limits import limited_pixels, pixel_limit
from prior_fast.radiology.masks import box_mask, encode_mask, read_mask
from prior_fast.radiology.study import AnnotationRow, Rejection, Study
from prior_fast.radiology.xray import EXACT, IMAGE_SIZE, UnreadableImage, read_xray

# Increase this number whenever the same files would give another chunk.
RULES_VERSION = 3
STUDIES_PER_CHUNK = 64
STEM = "chunk"


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
    max_pixels: int


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
    """Cut the studies into chunks of `size`, in their order. Their images are read with the limit in force here."""
    settings = (plan.images, plan.reports, min_sentences, folder, decode, sections, pixel_limit())
    return [
        ChunkTask(index, tuple(plan.studies[begin : begin + size]), *settings)
        for index, begin in enumerate(range(0, len(plan.studies), size))
    ]


def fingerprint(task: ChunkTask) -> str:
    """SHA-256 of the chunk's inputs. Files contribute their path, size and modification time, not their bytes."""
    facts: list[Any] = [RULES_VERSION, PIL.__version__, pydicom.__version__, IMAGE_SIZE, task.min_sentences]
    facts += [task.decode, task.sections, task.max_pixels]
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
    return task.folder / f"{STEM}-{task.index:06d}-{decode}{fingerprint(task)[:32]}{SUFFIX}"


def decoded_as(name: str) -> str:
    """The decode mode of a chunk, from the name of its file."""
    return parts[2] if len(parts := name.split("-")) == 4 else EXACT


def prepare_chunk(task: ChunkTask) -> ChunkResult:
    """Prepare the chunk and write its file, unless an earlier run left an undamaged one."""
    path = chunk_path(task)
    record = sound_record(path)
    if record is None:
        begin = time.perf_counter()
        with limited_pixels(task.max_pixels):
            record, images = _prepare(task)
        record["seconds"] = time.perf_counter() - begin
        write_chunk(path, record, images)
    broken = next((Rejection(**row) for row in record["rejected"] if row["broken"]), None)
    facts = (record["decoded"], record["seconds"], broken, record["other_encoding"])
    return ChunkResult(path, len(task.studies), *facts)


def sound_record(path: Path) -> dict[str, Any] | None:
    """The record in a chunk's file: "studies", "annotations", "rejected", "decoded", "seconds"; None if the file is
    missing or damaged.
    """
    found = sound_chunk(path)
    return None if found is None else found[0]


def _prepare(task: ChunkTask) -> tuple[dict[str, Any], np.ndarray]:
    studies: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    rejected: list[Rejection] = []
    images: list[np.ndarray] = []
    decoded, other_encoding = 0, 0
    for study in task.studies:
        report = read_report(task.reports, study, task.min_sentences, task.sections)
        other_encoding += report.other_encoding
        if report.rejection:
            rejected.append(report.rejection)
            continue
        kept: dict[str, tuple[int, tuple[int, int]]] = {}
        for image in study.images:
            try:
                if reason := irregular(task.images / image.path):
                    raise UnreadableImage(reason)
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
        if row.mask and (reason := irregular(folder / row.mask)):
            raise UnreadableImage(reason)
        mask = read_mask(folder / row.mask) if row.mask else box_mask(**box)
    except UnreadableImage as error:
        return study.reject(row.mask, "mask not readable", f"({error})", broken=True)
    encoded = base64.b64encode(encode_mask(mask)).decode()
    return {"study_id": study.study_id, "image_row": image_row, **texts, **box, "mask": encoded}


def _stat(folder: Path, relative: str) -> list[Any]:
    try:
        facts = (folder / relative).stat()
    except (OSError, ValueError):
        return [relative, None, None]
    return [relative, facts.st_size, facts.st_mtime_ns]
