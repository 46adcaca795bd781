"""Making a labelled dataset from its source: images are decoded in parallel; the result is complete or absent."""

import errno
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prior_fast.console import progress
from prior_fast.errors import RunError, UsageError
from prior_fast.prepare.labelled.labelled_source import Candidate, Decoded, LabelledSource
from prior_fast.prepare.labelled.own_lists import OwnLists, parse_words, read_lists
from prior_fast.prepare.labelled.splits import Pool, shared_patients
from prior_fast.prepare.labelled.write import Contents, Record, write_labelled, write_rejected
from prior_fast.processes import parallel_map
from prior_fast.radiology.xray import IMAGE_SIZE, UnreadableImage

_CHUNK = 16
_NUMBERS = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class LabelledOptions:
    """The options that all labelled datasets share.

    Attributes:
        out: the folder of the new dataset.
        workers: number of decoding processes; 1 decodes in this process.
        strict: stop at the first file or annotation that would be left out.
        split_lists: the user's own splits, as NAME=DIR.
    """

    out: Path
    workers: int = 1
    strict: bool = False
    split_lists: Sequence[str] = ()


@dataclass
class _Result:
    """The result of decoding: records, the rows of their images in the temporary file, rejections and remarks."""

    records: list[Record] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)


def prepare_labelled(read: Callable[[], LabelledSource], options: LabelledOptions) -> dict[str, Any]:
    """Make the dataset `options.out` from the source that `read` returns.

    Decoded images are kept in a temporary file beside `out`, because the usable images are known only after all are
    decoded. The file takes 50 KB per image and is removed at the end.

    Returns:
        The content of dataset.json, and "seconds".

    Raises:
        UsageError: an option or a table can't be used, or no image can be used.
        RunError: a file is left out under `strict`, the disk is full, or a worker process died.
    """
    begin = time.perf_counter()
    _check(options)
    folders = parse_words(options.split_lists)
    source = read()
    if options.strict and source.rejected:
        raise RunError("--strict: {}: {}".format(*source.rejected[0]))
    named = {candidate.image_id for candidate in source.candidates} | {name for name, _ in source.rejected}
    own = [read_lists(name, folder, named) for name, folder in folders.items()]
    with _explained(options.out), _scratch_folder(options.out) as scratch:
        path = scratch / "images.npy"
        result = _decode_all(source, options, path)
        if not result.records:
            listed = options.out.with_name(f"{options.out.name}.rejected.csv")
            write_rejected(listed, result.rejected)
            raise UsageError(
                f"no image of {source.root} can be used: {_most_frequent(result.rejected)}; {listed} names each"
            )
        contents = _contents(source, result, own)
        images = np.load(path, mmap_mode="r")
        info = write_labelled(options.out, contents, (np.asarray(images[row]) for row in result.rows))
    return {**info, "seconds": round(time.perf_counter() - begin, 1)}


@contextmanager
def _scratch_folder(out: Path) -> Iterator[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.", suffix=".decoded", dir=out.parent) as folder:
        yield Path(folder)


def _decode_all(source: LabelledSource, options: LabelledOptions, path: Path) -> _Result:
    result = _Result(rejected=list(source.rejected))
    if not source.candidates:
        return result
    shape = (len(source.candidates), IMAGE_SIZE, IMAGE_SIZE)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with progress() as bar:
        task = bar.add_task("reading images", total=len(source.candidates))
        decoded = parallel_map(partial(_decode, source.decode), source.candidates, options.workers, _CHUNK)
        for row, (candidate, found) in enumerate(zip(source.candidates, decoded)):
            file = _relative(candidate.path, source.root)
            reasons = [found] if isinstance(found, str) else [*found.dropped]
            if options.strict and reasons:
                raise RunError(f"--strict: {file}: {reasons[0]}")
            result.rejected += [(file, reason) for reason in reasons]
            if isinstance(found, Decoded):
                images[row] = found.image
                result.rows.append(row)
                marks = (found.boxes, found.mask, found.box_classes)
                result.records.append(Record(candidate.image_id, candidate.patient_id, candidate.labels, *marks))
                result.remarks.update(found.remarks)
            bar.advance(task)
    return result


def _decode(decode: Callable[[Candidate], Decoded], candidate: Candidate) -> Decoded | str:
    """The decoded candidate, or the reason why it can't be used, in one line."""
    try:
        return decode(candidate)
    except UnreadableImage as error:
        return str(error)


def _contents(source: LabelledSource, result: _Result, own: Sequence[OwnLists]) -> Contents:
    records = result.records
    positive = [source.positive(record) for record in records]
    pool = Pool([record.image_id for record in records], [record.patient_id for record in records], positive)
    splits = dict(source.splits(pool))
    notes = [*source.notes, *(f"{remark}: {count} image(s)" for remark, count in sorted(result.remarks.items()))]
    splits |= {lists.name: lists.split(pool) for lists in own}
    for name, split in splits.items():
        if shared := shared_patients(pool, split):
            notes.append(f"the split {name} has {shared} patient(s) in more than one part")
    facts = {
        **source.facts,
        "labels": _count_labels(source.classes, records),
        "reasons": _count_reasons(result.rejected),
        "notes": notes,
    }
    annotations = (source.has_boxes, source.has_masks)
    return Contents(source.name, source.classes, records, splits, *annotations, result.rejected, facts, source.texts)


def _count_labels(classes: Sequence[str], records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """For each class, the numbers of positive, negative, uncertain and blank labels."""
    labels = np.array([record.labels for record in records], np.float32)
    kinds = {"positive": labels == 1, "negative": labels == 0, "uncertain": labels == -1, "blank": np.isnan(labels)}
    return {
        name: {kind: int(there[:, column].sum()) for kind, there in kinds.items()}
        for column, name in enumerate(classes)
    }


def _count_reasons(rejected: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Count the reasons, the most frequent first. Reasons that differ only in numbers are counted together."""
    counts = Counter(_NUMBERS.sub("N", reason) for _, reason in rejected)
    return [{"reason": kind, "lines": count} for kind, count in sorted(counts.items(), key=lambda x: (-x[1], x[0]))]


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _most_frequent(rejected: Sequence[tuple[str, str]]) -> str:
    """The most frequent reasons, each with its number of lines and one file."""
    counts = _count_reasons(rejected)[:3]
    files = {_NUMBERS.sub("N", reason): file for file, reason in reversed(rejected)}
    shown = [f"{row['reason']} ({row['lines']}), such as {files[row['reason']]}" for row in counts]
    return ", ".join(shown) or "the tables name none"


def _check(options: LabelledOptions) -> None:
    if options.workers < 1:
        raise UsageError(f"--workers must be 1 or more, not {options.workers}")
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out} is a file; give a folder that does not exist yet")
    if options.out.is_dir() and any(options.out.iterdir()):
        raise UsageError(f"--out {options.out} is not empty; give a folder that does not exist yet, or remove it")


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Turn errors that interrupt a run into a message that says what to do."""
    try:
        yield
    except BrokenProcessPool as error:
        raise RunError("a worker process died, perhaps for lack of memory; give fewer --workers") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"no space is left for {out}; free some and start the same command again") from error
        raise
