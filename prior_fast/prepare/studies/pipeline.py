"""Making a prepared dataset from a source of studies: in parallel, resumable; the result is complete or absent."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prior_fast.console import progress
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import RunError, UsageError
from prior_fast.files import atomic_directory, write_json
from prior_fast.prepare.chunk_file import SUFFIX, remove_chunks, stored_bytes
from prior_fast.prepare.finish import files_of, write_info
from prior_fast.prepare.output import claim, is_occupied, need_images, not_empty
from prior_fast.prepare.studies import assemble
from prior_fast.prepare.studies.chunks import (
    STEM,
    ChunkResult,
    ChunkTask,
    chunk_path,
    decoded_as,
    make_tasks,
    prepare_chunk,
)
from prior_fast.prepare.studies.options import PrepareOptions, check_options
from prior_fast.prepare.studies.plan import StudyPlan
from prior_fast.prepare.studies.preview import write_preview
from prior_fast.prepare.studies.probe import check_strict, probe
from prior_fast.prepare.studies.summary import empty_splits, make_report, most_frequent
from prior_fast.processes import parallel_map
from prior_fast.radiology.tokenizer import TRAIN_TOKENIZER, load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REPORT_FILE = "report.json"
# The records of shards, in the partial folder.
SHARD_FILES = "shard-*-of-*.json"


def prepare_studies(options: PrepareOptions) -> dict[str, Any]:
    """Make the prepared dataset `options.out`.

    Finished chunks are kept in `<out>.partial` until the dataset is complete, so an interrupted run continues from
    them. No other command can write there at the same time.

    If `out` already holds a dataset of the same inputs and options, it is not changed, and the result has
    "already_done": True.

    Returns:
        The content of report.json.

    Raises:
        UsageError: an option or the source can't be used, or no study of the source can be used.
        RunError: a file is broken under `strict`, the disk is full, or another process prepares `out`.
        Interrupted: Ctrl-C.
    """
    check_options(options)
    with claim(options.out) as out:
        return _prepare(replace(options, out=out))


def _prepare(options: PrepareOptions) -> dict[str, Any]:
    begin = time.perf_counter()
    check_vacant(options.out)
    plan = options.source.read()
    tasks = cut_plan(options, plan)
    if is_occupied(options.out):
        return existing(options, plan, [chunk_path(task) for task in tasks])
    check_strict(options, plan)
    probe(options, plan)
    tokenizer = load_named_tokenizer(options.tokenizer)
    check_partial(options)
    if any(options.partial.glob(SHARD_FILES)):
        raise UsageError(
            f"{options.partial} holds shards: complete them and `prior-fast prepare merge --out {options.out}`, give "
            "another --out, or remove that folder to begin again"
        )
    check_space(options, plan, tasks, dataset=True)
    results = prepare_chunks(options, tasks)
    return make_dataset(options, plan, results, tokenizer, lambda: {"seconds": round(time.perf_counter() - begin, 3)})


def cut_plan(options: PrepareOptions, plan: StudyPlan) -> list[ChunkTask]:
    """The chunks of all studies of the plan."""
    return make_tasks(plan, options.min_sentences, options.partial, options.decode, options.sections)


def check_vacant(out: Path) -> None:
    """Refuse a folder that holds something else than a prepared dataset, before any work.

    Raises:
        UsageError: the message says what it holds.
    """
    if is_occupied(out) and not (out / REPORT_FILE).is_file():
        raise UsageError(not_empty(out))


def check_space(options: PrepareOptions, plan: StudyPlan, tasks: Sequence[ChunkTask], dataset: bool) -> None:
    """Refuse to begin without space for the chunks, and for the dataset if it is made too.

    Raises:
        RunError: too few bytes are free.
    """
    images = [image.path for task in tasks for study in task.studies for image in study.images]
    stored = stored_bytes(options.partial, STEM, (task.index for task in tasks))
    need_images(options.out, plan.images, images, stored, dataset)


def check_partial(options: PrepareOptions) -> None:
    """Refuse to continue from chunks with another decode mode.

    Raises:
        UsageError: there are such chunks.
    """
    for path in options.partial.glob(f"{STEM}-*{SUFFIX}"):
        if (found := decoded_as(path.name)) != options.decode:
            raise UsageError(
                f"{options.partial} holds images prepared with --decode {found}, not {options.decode}: give --decode "
                f"{found} to go on from there, another --out, or remove that folder to begin again"
            )


def clean(partial: Path) -> None:
    """Remove chunks and records of shards. The folder, if empty, is removed when it is no longer held."""
    remove_chunks(partial, STEM)
    for record in partial.glob(SHARD_FILES):
        record.unlink()


def load_named_tokenizer(name: str) -> "PreTrainedTokenizerFast | None":
    """The tokenizer of this name; None if one is to be trained."""
    return None if name == TRAIN_TOKENIZER else load_tokenizer(name)


def existing(options: PrepareOptions, plan: StudyPlan, chunks: Sequence[Path]) -> dict[str, Any]:
    """The report of the existing dataset at --out, with "already_done", if it was made from these chunks.

    Raises:
        UsageError: --out holds another dataset, or something else.
        RunError: the dataset leaves out broken files, under `strict`.
    """
    refusal = not_empty(options.out)
    try:
        report = json.loads((options.out / REPORT_FILE).read_text(encoding="utf-8"))
        if not isinstance(report, dict):
            raise ValueError("it is no object")
        PreparedDataset.open(options.out)
    except (OSError, ValueError, RecursionError, UsageError) as error:
        raise UsageError(refusal) from error
    if report.get("fingerprint") != _fingerprint(options, plan, chunks):
        raise UsageError(f"{refusal}: it holds a dataset prepared from other inputs or with other options")
    if options.strict and report["broken_files"]:
        count = report["broken_files"]
        raise RunError(f"--strict: {options.out} is there already and leaves out {count} broken file(s)")
    return {**report, "already_done": True}


def prepare_chunks(options: PrepareOptions, tasks: Sequence[ChunkTask]) -> list[ChunkResult]:
    """Prepare the chunks that do not exist yet.

    Raises:
        RunError: a file is missing or broken, under `strict`.
    """
    results = []
    with progress() as bar:
        task = bar.add_task("reading studies", total=sum(len(chunk.studies) for chunk in tasks))
        for result in parallel_map(prepare_chunk, tasks, options.workers):
            broken = result.first_broken
            if options.strict and broken:
                raise RunError(f"--strict: study {broken.shown_study}, {broken.file}: {broken.reason}")
            results.append(result)
            bar.advance(task, result.studies)
    return results


def make_dataset(
    options: PrepareOptions,
    plan: StudyPlan,
    results: list[ChunkResult],
    tokenizer: "PreTrainedTokenizerFast | None",
    facts: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Make the dataset `out` from all chunks, whole or not at all, and remove the chunks.

    Args:
        results: the results of all chunks, in the order of the chunks.
        tokenizer: None to train one on the training sentences.
        facts: further entries of the report; called when the dataset is written.

    Returns:
        The report.

    Raises:
        UsageError: no study of the training split is left, or its images are all of one gray level.
        RunError: the disk is full.
    """
    with progress() as bar:
        task = bar.add_task("merging", total=len(results))
        chunks, rejections = assemble.collect(
            [result.path for result in results], plan.by_id(), lambda: bar.advance(task)
        )
    rejections += plan.rejections
    sentences = assemble.training_sentences(chunks)
    if not sentences:
        assemble.write_rejected(options.rejected, rejections)
        if not any(options.partial.glob(SHARD_FILES)):
            clean(options.partial)
        raise UsageError(
            f"no study of the training split can be used ({_kept(chunks)}); studies left out: "
            f"{most_frequent(rejections, plan)}; {options.rejected} names each"
        )
    with atomic_directory(options.out) as folder:
        with progress() as bar:
            task = bar.add_task("tokenizing", total=None)
            tokenizer = tokenizer or train_tokenizer(sentences)
            assemble.add_tokens(chunks, tokenizer, options.min_sentences, rejections)
            writing = bar.add_task("writing", total=len(chunks))
            bar.remove_task(task)
            info = assemble.write_dataset(
                *(folder, chunks, tokenizer, options.tokenizer, rejections, options.decode, plan.classes),
                advance=lambda: bar.advance(writing),
            )
            hashing = bar.add_task("hashing", total=len(files_of(folder)))
            write_info(folder, info, lambda: bar.advance(hashing))
        write_preview(folder)
        fingerprint = _fingerprint(options, plan, [result.path for result in results])
        report = make_report(options, plan, info["splits"], rejections, results)
        report["notes"] += empty_splits(info["splits"])
        report |= {"fingerprint": fingerprint, **facts()}
        write_json(folder / REPORT_FILE, report)
    options.rejected.unlink(missing_ok=True)
    clean(options.partial)
    return report


def _fingerprint(options: PrepareOptions, plan: StudyPlan, chunks: Sequence[Path]) -> str:
    """SHA-256 of the dataset's inputs; the names of the chunks represent the studies and the options."""
    tokenizer = [options.tokenizer, tokenizer_files(options.tokenizer)]
    # Chunks have no labels: which column they come from is an option of some layouts.
    labels = [plan.classes, [study.labels for study in plan.studies]]
    facts = [plan.digest, tokenizer, labels, [path.name for path in chunks]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def tokenizer_files(name: str) -> list[list[Any]]:
    """Name, size and modification time of each file of a tokenizer's folder; empty if `name` is not a folder."""
    files = [] if name == TRAIN_TOKENIZER else sorted(path for path in Path(name).rglob("*") if path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _kept(chunks: list[assemble.Chunk]) -> str:
    counts = assemble.count_splits(chunks)
    return "usable studies: " + ", ".join(f"{name} {split['studies']}" for name, split in counts.items())
