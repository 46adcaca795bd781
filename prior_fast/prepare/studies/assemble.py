"""Assembling a prepared dataset from finished chunks."""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prior_fast.data.prepared_dataset import FORMAT, VERSION
from prior_fast.files import write_text
from prior_fast.prepare.chunk_file import read_chunk, read_record
from prior_fast.prepare.finish import check_contrast
from prior_fast.prepare.npy import GrayLevels, write_npy
from prior_fast.radiology.study import SPLITS, Rejection, Study
from prior_fast.radiology.tokenizer import save_tokenizer, tokenize
from prior_fast.radiology.xray import IMAGE_SIZE
from prior_fast.tables import csv_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass
class Kept:
    """A study that is kept in the dataset.

    Attributes:
        image_rows: rows of its images within its chunk.
        sentences: the sentences of its report.
        tokens: the int32 token ids of each sentence.
    """

    study: Study
    dicom_ids: list[str]
    image_rows: range
    sentences: list[str]
    tokens: list[np.ndarray]


@dataclass
class Chunk:
    """A finished chunk: its file, its kept studies, and its annotations as stored in the file."""

    path: Path
    kept: list[Kept]
    annotations: list[dict[str, Any]]


def collect(
    paths: Sequence[Path], studies: dict[int, Study], advance: Callable[[], object] = lambda: None
) -> tuple[list[Chunk], list[Rejection]]:
    """Read the records of the chunks, without images: the kept studies and the rejections.

    The rejections include the images of kept studies that are left out because of the tables.

    Args:
        advance: called after each chunk.
    """
    chunks, rejections = [], []
    for path in paths:
        record = read_record(path)
        rejections += [Rejection(**row) for row in record["rejected"]]
        kept, row = [], 0
        for entry in record["studies"]:
            study, dicom_ids = studies[entry["study_id"]], entry["dicom_ids"]
            rejections += study.left_out
            kept.append(Kept(study, dicom_ids, range(row, row + len(dicom_ids)), entry["sentences"], []))
            row += len(dicom_ids)
        chunks.append(Chunk(path, kept, record["annotations"]))
        advance()
    return chunks, rejections


def add_tokens(
    chunks: list[Chunk],
    tokenizer: "PreTrainedTokenizerFast",
    min_sentences: int,
    rejections: list[Rejection],
) -> None:
    """Tokenize every sentence once. Drop sentences without a token, and studies that then have too few sentences."""
    tokens = iter(tokenize(tokenizer, [s for chunk in chunks for kept in chunk.kept for s in kept.sentences]))
    for chunk in chunks:
        remaining = []
        for kept in chunk.kept:
            pairs = [(sentence, ids) for sentence in kept.sentences if len(ids := next(tokens))]
            kept.sentences, kept.tokens = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            if len(pairs) >= min_sentences:
                remaining.append(kept)
                continue
            kind, detail = f"fewer than {min_sentences} sentences", f"({len(pairs)} with a token of the tokenizer)"
            study = kept.study
            rejections.append(study.reject(study.report.path or study.place, kind, detail, whole=True))
        chunk.kept = remaining


def training_sentences(chunks: list[Chunk]) -> list[str]:
    """The sentences of the training split."""
    return [s for chunk in chunks for kept in chunk.kept if kept.study.split == "train" for s in kept.sentences]


def count_splits(chunks: list[Chunk]) -> dict[str, dict[str, int]]:
    """Studies, images, sentences and tokens of each split."""
    studies = [kept for chunk in chunks for kept in chunk.kept]
    return {split: _counts([kept for kept in studies if kept.study.split == split]) for split in SPLITS}


def write_dataset(
    folder: Path,
    chunks: list[Chunk],
    tokenizer: "PreTrainedTokenizerFast",
    tokenizer_source: str,
    rejections: list[Rejection],
    decode: str,
    classes: Sequence[str],
    advance: Callable[[], object],
) -> dict[str, Any]:
    """Write a dataset into the empty folder, except dataset.json.

    Args:
        classes: the names of the labels.
        tokenizer_source: "train", or the name by which the tokenizer was loaded.
        decode: how the images were decoded, "exact" or "fast".
        advance: called after each chunk.

    Returns:
        The content of dataset.json without the list of files.

    Raises:
        UsageError: the training images are all of one gray level.
    """
    studies = [kept for chunk in chunks for kept in chunk.kept]
    mean, std = _write_images(folder / "images.npy", chunks, advance)
    lengths = np.array([len(ids) for kept in studies for ids in kept.tokens], np.int64)
    tokens = [ids for kept in studies for ids in kept.tokens]
    _write_array(folder / "tokens.npy", np.concatenate(tokens))
    _write_array(folder / "sentence_offsets.npy", np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))
    pq.write_table(_manifest(studies, classes), folder / "manifest.parquet")
    _write_annotations(folder / "annotations.parquet", chunks)
    write_rejected(folder / "rejected.csv", rejections)
    save_tokenizer(tokenizer, folder / "tokenizer")
    return {
        "format": FORMAT,
        "version": VERSION,
        **_counts(studies),
        "splits": count_splits(chunks),
        "decode": decode,
        "image_size": IMAGE_SIZE,
        "image_mean": mean,
        "image_std": std,
        "labels": list(classes),
        "tokenizer": {
            "source": tokenizer_source,
            "vocab_size": len(tokenizer),
            "cls_id": tokenizer.cls_token_id,
            "sep_id": tokenizer.sep_token_id,
        },
    }


def _counts(studies: list[Kept]) -> dict[str, int]:
    return {
        "studies": len(studies),
        "images": sum(len(kept.dicom_ids) for kept in studies),
        "sentences": sum(len(kept.sentences) for kept in studies),
        "tokens": sum(len(ids) for kept in studies for ids in kept.tokens),
    }


def _write_images(path: Path, chunks: list[Chunk], advance: Callable[[], object]) -> tuple[float, float]:
    """Write images.npy chunk by chunk; returns mean and standard deviation of the training images in [0, 1]."""
    rows = sum(len(kept.image_rows) for chunk in chunks for kept in chunk.kept)
    levels = GrayLevels()

    def blocks() -> Iterator[np.ndarray]:
        for chunk in chunks:
            _, images = read_chunk(chunk.path)
            for kept in chunk.kept:
                own = images[kept.image_rows.start : kept.image_rows.stop]
                if kept.study.split == "train":
                    levels.add(own)
                yield own
            advance()

    write_npy(path, np.dtype(np.uint8), (rows, IMAGE_SIZE, IMAGE_SIZE), blocks())
    mean, std = levels.mean_and_std()
    check_contrast(mean, std, "all training images")
    return mean, std


def _write_array(path: Path, array: np.ndarray) -> None:
    write_npy(path, array.dtype, array.shape, [array])


def _manifest(studies: list[Kept], classes: Sequence[str]) -> pa.Table:
    def ends(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        return bounds[:-1], bounds[1:]

    def names(own: str, number: str) -> pa.Array:
        return pa.array([getattr(kept.study, own) or str(getattr(kept.study, number)) for kept in studies], pa.string())

    image_begin, image_end = ends([len(kept.dicom_ids) for kept in studies])
    sentence_begin, sentence_end = ends([len(kept.sentences) for kept in studies])
    blank = (None,) * len(classes)
    labels = zip(*(kept.study.labels or blank for kept in studies))
    return pa.table(
        {
            "study_id": pa.array([kept.study.study_id for kept in studies], pa.int64()),
            "subject_id": pa.array([kept.study.subject_id for kept in studies], pa.int64()),
            **{"study": names("name", "study_id"), "subject": names("subject", "subject_id")},
            "split": pa.array([kept.study.split for kept in studies], pa.string()),
            "dicom_ids": pa.array([kept.dicom_ids for kept in studies], pa.list_(pa.string())),
            "image_paths": pa.array([_paths(kept) for kept in studies], pa.list_(pa.string())),
            **{"image_begin": image_begin, "image_end": image_end},
            **{"sentence_begin": sentence_begin, "sentence_end": sentence_end},
            "sentences": pa.array([kept.sentences for kept in studies], pa.list_(pa.string())),
            **{name: pa.array(column, pa.float32()) for name, column in zip(classes, labels)},
        }
    )


def _paths(kept: Kept) -> list[str]:
    by_id = {image.image_id: image.path for image in kept.study.images}
    return [by_id[image_id] for image_id in kept.dicom_ids]


def _write_annotations(path: Path, chunks: list[Chunk]) -> None:
    """Write annotations.parquet, with image rows of the whole dataset. Without annotations there is no file."""
    rows = list(_annotation_rows(chunks))
    if not rows:
        return
    box = [(name, pa.float32()) for name in ("x", "y", "width", "height")]
    texts = [(name, pa.string()) for name in ("finding", "side", "severity")]
    schema = pa.schema([("image_row", pa.int64()), *texts, *box, ("mask", pa.binary())])
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def _annotation_rows(chunks: list[Chunk]) -> Iterator[dict[str, Any]]:
    row = 0
    for chunk in chunks:
        position = {}
        for kept in chunk.kept:
            for own in kept.image_rows:
                position[own] = row
                row += 1
        for annotation in chunk.annotations:
            if annotation["image_row"] in position:
                mask = base64.b64decode(annotation["mask"])
                yield {**annotation, "image_row": position[annotation["image_row"]], "mask": mask}


def write_rejected(path: Path, rejections: list[Rejection]) -> None:
    """Write study, file and reason of each rejection, sorted, as csv."""
    rows = sorted((rejection.shown_study, rejection.file, rejection.reason) for rejection in rejections)
    write_text(path, csv_text([("study", "file", "reason"), *rows]))
