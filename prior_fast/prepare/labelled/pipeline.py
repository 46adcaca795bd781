"""Making a labelled dataset from its source: in parallel, resumable; the result is complete or absent.

The images are decoded in chunks, which are kept in `<out>.partial` until the dataset is complete. A shard decodes its
share of the chunks. The command without a shard finds all chunks there and makes the dataset.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from prior_fast.console import progress
from prior_fast.errors import RunError, UsageError
from prior_fast.files.claim import DATASET, kind_of
from prior_fast.prepare.chunk_file import remove_chunks, stored_bytes
from prior_fast.prepare.labelled.chunks import STEM, LabelledTask, decode_chunk, make_tasks, read_found, read_images
from prior_fast.prepare.labelled.labelled_source import Decoded, LabelledSource
from prior_fast.prepare.labelled.own_lists import OwnLists, parse_words, read_lists
from prior_fast.prepare.labelled.splits import Pool, shared_patients
from prior_fast.prepare.labelled.write import Contents, Record, write_labelled, write_rejected
from prior_fast.prepare.output import claim, is_occupied, need_images, not_empty, partial_of, remove_share
from prior_fast.prepare.paths import BAD_NAME, OUTSIDE, bad_name, path_inside
from prior_fast.prepare.shard import Shard
from prior_fast.processes import parallel_map

_NUMBERS = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class LabelledOptions:
    """The options that all labelled datasets share.

    Attributes:
        out: the folder of the new dataset.
        workers: number of decoding processes; 1 decodes in this process.
        strict: stop at the first file or annotation that would be left out.
        split_lists: the user's own splits, as NAME=DIR.
        shard: decode only this share of the images; None to make the dataset.
    """

    out: Path
    workers: int = 1
    strict: bool = False
    split_lists: Sequence[str] = ()
    shard: Shard | None = None

    @property
    def partial(self) -> Path:
        """The folder beside `out` that holds the decoded images of an unfinished dataset."""
        return partial_of(self.out)

    @property
    def listed(self) -> Path:
        """The file beside `out` that lists what was left out when no dataset could be made."""
        return self.out.with_name(f"{self.out.name}.rejected.csv")


@dataclass
class _Result:
    """The result of decoding: records of the images that can be used, rejections and remarks."""

    records: list[Record] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)


def prepare_labelled(read: Callable[[], LabelledSource], options: LabelledOptions) -> dict[str, Any]:
    """Make the dataset `options.out` from the source that `read` returns, or decode a shard of its images.

    Decoded images are kept in `<out>.partial`, 50 KB each, until the dataset is complete. A stopped run continues from
    them. Shards work there together; the command without a shard works alone.

    Returns:
        The content of dataset.json, and "seconds"; for a shard "shard", "images" and "seconds".

    Raises:
        UsageError: an option or a table can't be used, or no image can be used.
        RunError: a file is left out under `strict`, the disk is full, or another process writes there.
        Interrupted: Ctrl-C.
    """
    if options.workers < 1:
        raise UsageError(f"--workers must be 1 or more, not {options.workers}")
    folders = parse_words(options.split_lists)
    with claim(options.out, options.shard) as out:
        if is_occupied(out):
            if kind_of(out) == DATASET:
                # A run that was killed, or failed, between the dataset's last file and the removal of its chunks.
                remove_chunks(partial_of(out), STEM)
            raise UsageError(not_empty(out))
        return _prepare(read, replace(options, out=out), folders)


def _prepare(read: Callable[[], LabelledSource], options: LabelledOptions, folders: dict[str, Path]) -> dict[str, Any]:
    begin = time.perf_counter()
    source = _only_inside(read())
    if options.strict and source.rejected:
        raise RunError("--strict: {}: {}".format(*source.rejected[0]))
    named = {candidate.image_id for candidate in source.candidates} | {name for name, _ in source.rejected}
    own = [read_lists(name, folder, named) for name, folder in folders.items()]
    tasks = make_tasks(source.candidates, source.decode, options.partial)
    if options.shard is not None:
        share = options.shard.share(tasks)
        remove_share(options.partial, STEM, [task.index for task in share])
        _check_space(source, options, share)
        _decode_all(source, options, share)
        images, seconds = sum(len(task.candidates) for task in share), round(time.perf_counter() - begin, 1)
        return {"shard": str(options.shard), "images": images, "seconds": seconds}
    _check_space(source, options, tasks)
    paths = _decode_all(source, options, tasks)
    result = _collect(source, tasks, paths)
    if not result.records:
        write_rejected(options.listed, result.rejected)
        remove_chunks(options.partial, STEM)
        raise UsageError(
            f"no image of {source.root} can be used: {_most_frequent(result.rejected)}; {options.listed} names each"
        )
    info = write_labelled(options.out, _contents(source, result, own), map(read_images, paths), len(paths))
    options.listed.unlink(missing_ok=True)
    remove_chunks(options.partial, STEM)
    return {**info, "seconds": round(time.perf_counter() - begin, 1)}


def _only_inside(source: LabelledSource) -> LabelledSource:
    """The source without images whose path leads outside of its folder or whose name can't be used."""
    kept, rejected = [], list(source.rejected)
    for candidate in source.candidates:
        # A root that has ".." itself is none of the table's doing.
        name = str(candidate.path).removeprefix(f"{source.root}/")
        names = (name, candidate.image_id, candidate.patient_id)
        if path_inside(source.root, name) is None:
            rejected.append((candidate.image_id, OUTSIDE))
        elif reason := next(filter(None, map(bad_name, names)), ""):
            rejected.append((candidate.image_id, f"{BAD_NAME} ({reason})"))
        else:
            kept.append(candidate)
    return replace(source, candidates=kept, rejected=rejected)


def _check_space(source: LabelledSource, options: LabelledOptions, tasks: Sequence[LabelledTask]) -> None:
    images = [str(candidate.path) for task in tasks for candidate in task.candidates]
    stored = stored_bytes(options.partial, STEM, (task.index for task in tasks))
    need_images(options.out, Path(), images, stored, dataset=options.shard is None)


def _decode_all(source: LabelledSource, options: LabelledOptions, tasks: Sequence[LabelledTask]) -> list[Path]:
    """Decode the chunks that do not exist yet.

    Raises:
        RunError: a file or an annotation would be left out, under `strict`.
    """
    paths = []
    with progress() as bar:
        bar_task = bar.add_task("reading images", total=sum(len(task.candidates) for task in tasks))
        for task, path in zip(tasks, parallel_map(decode_chunk, tasks, options.workers)):
            if options.strict:
                for candidate, found in zip(task.candidates, read_found(path)):
                    if reasons := _reasons(found):
                        raise RunError(f"--strict: {_relative(candidate.path, source.root)}: {reasons[0]}")
            paths.append(path)
            bar.advance(bar_task, len(task.candidates))
    return paths


def _collect(source: LabelledSource, tasks: Sequence[LabelledTask], paths: Sequence[Path]) -> _Result:
    """The records and rejections of all chunks, in the order of the candidates."""
    result = _Result(rejected=list(source.rejected))
    with progress() as bar:
        merging = bar.add_task("merging", total=len(tasks))
        for task, path in zip(tasks, paths):
            for candidate, found in zip(task.candidates, read_found(path)):
                file = _relative(candidate.path, source.root)
                result.rejected += [(file, reason) for reason in _reasons(found)]
                if isinstance(found, Decoded):
                    marks = (found.boxes, found.mask, found.box_classes)
                    result.records.append(Record(candidate.image_id, candidate.patient_id, candidate.labels, *marks))
                    result.remarks.update(found.remarks)
            bar.advance(merging)
    return result


def _reasons(found: Decoded | str) -> Sequence[str]:
    """Why the image, or an annotation of it, is left out."""
    return [found] if isinstance(found, str) else found.dropped


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
