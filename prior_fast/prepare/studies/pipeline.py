"""Making a prepared dataset from a source of studies: in parallel, resumable; the result is complete or absent."""

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prior_fast.console import progress
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import RunError, UsageError
from prior_fast.files import write_json
from prior_fast.prepare.studies import assemble
from prior_fast.prepare.studies.chunks import ChunkResult, ChunkTask, chunk_path, decoded_as, make_tasks, prepare_chunk
from prior_fast.prepare.studies.options import PrepareOptions, check_options
from prior_fast.prepare.studies.plan import StudyPlan
from prior_fast.prepare.studies.preview import write_preview
from prior_fast.prepare.studies.probe import check_strict, probe
from prior_fast.prepare.studies.summary import make_report, most_frequent
from prior_fast.processes import parallel_map
from prior_fast.radiology.tokenizer import TRAIN_TOKENIZER, load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REPORT_FILE = "report.json"
# The records of shards, in the partial folder.
SHARD_FILES = "shard-*-of-*.json"
# The dataset, in the partial folder, until it is complete.
_FINISHED = "dataset"


def prepare_studies(options: PrepareOptions) -> dict[str, Any]:
    """Make the prepared dataset `options.out`.

    Finished chunks are kept in `<out>.partial` until the dataset is complete, so an interrupted run continues from
    them. If `out` already holds a dataset of the same inputs and options, it is not changed, and the result has
    "already_done": True.

    Returns:
        The content of report.json.

    Raises:
        UsageError: an option or the source can't be used, or no study of the source can be used.
        RunError: a file is broken under `strict`, the disk is full, or the run was interrupted.
    """
    begin = time.perf_counter()
    check_options(options)
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
    with explained(options):
        options.partial.mkdir(parents=True, exist_ok=True)
        results = prepare_chunks(options, tasks)
        report = assemble_dataset(options, plan, results, tokenizer)
        report["seconds"] = round(time.perf_counter() - begin, 3)
        publish(options, report)
    return report


def cut_plan(options: PrepareOptions, plan: StudyPlan) -> list[ChunkTask]:
    """The chunks of all studies of the plan."""
    return make_tasks(plan, options.min_sentences, options.partial, options.decode, options.sections)


def is_occupied(out: Path) -> bool:
    """Whether the folder of the new dataset exists and is not empty."""
    return out.is_dir() and any(out.iterdir())


def check_partial(options: PrepareOptions) -> None:
    """Refuse to continue from chunks with another decode mode.

    Raises:
        UsageError: there are such chunks.
    """
    for path in options.partial.glob("chunk-*.npz"):
        if (found := decoded_as(path.name)) != options.decode:
            raise UsageError(
                f"{options.partial} holds images prepared with --decode {found}, not {options.decode}: give --decode "
                f"{found} to go on from there, another --out, or remove that folder to begin again"
            )


def publish(options: PrepareOptions, report: dict[str, Any]) -> None:
    """Write report and preview into the finished dataset, move it to `out` and remove the temporary files."""
    finished = options.partial / _FINISHED
    write_preview(finished)
    write_json(finished / REPORT_FILE, report)
    finished.rename(options.out)
    options.rejected.unlink(missing_ok=True)
    clean(options.partial)


def clean(partial: Path) -> None:
    """Remove chunks and records of shards. The folder stays if it holds files that prepare did not write."""
    for pattern in ("chunk-*.npz", ".chunk-*.partial", SHARD_FILES, f".{SHARD_FILES}.*.partial"):
        for leftover in partial.glob(pattern):
            leftover.unlink()
    if not any(partial.iterdir()):
        partial.rmdir()


def load_named_tokenizer(name: str) -> "PreTrainedTokenizerFast | None":
    """The tokenizer of this name; None if one is to be trained."""
    return None if name == TRAIN_TOKENIZER else load_tokenizer(name)


def existing(options: PrepareOptions, plan: StudyPlan, chunks: Sequence[Path]) -> dict[str, Any]:
    """The report of the existing dataset at --out, with "already_done", if it was made from these chunks.

    Raises:
        UsageError: --out holds another dataset, or something else.
        RunError: the dataset leaves out broken files, under `strict`.
    """
    refusal = f"--out {options.out} is not empty; give a folder that does not exist yet, or remove it"
    try:
        report = json.loads((options.out / REPORT_FILE).read_text(encoding="utf-8"))
        PreparedDataset.open(options.out)
    except (OSError, ValueError, UsageError) as error:
        raise UsageError(refusal) from error
    if report.get("fingerprint") != _fingerprint(options, plan, chunks):
        raise UsageError(f"{refusal}: it holds a dataset prepared from other inputs or with other options")
    if options.strict and report["broken_files"]:
        count = report["broken_files"]
        raise RunError(f"--strict: {options.out} is there already and leaves out {count} broken file(s)")
    return {**report, "already_done": True}


@contextmanager
def explained(options: PrepareOptions) -> Iterator[None]:
    """Turn errors that interrupt a run into a message that says what to do."""
    again = "start the same command again to go on from there"
    try:
        yield
    except KeyboardInterrupt as error:
        raise RunError(f"stopped; {again}") from error
    except BrokenProcessPool as error:
        raise RunError(f"a worker process died, perhaps for lack of memory; {again}, with fewer --workers") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"no space is left for {options.out}; free some and {again}") from error
        raise


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


def assemble_dataset(
    options: PrepareOptions, plan: StudyPlan, results: list[ChunkResult], tokenizer: "PreTrainedTokenizerFast | None"
) -> dict[str, Any]:
    """Write the dataset without its report, which `publish` writes.

    Args:
        results: the results of all chunks, in the order of the chunks.
        tokenizer: None to train one on the training sentences.

    Returns:
        The report.

    Raises:
        UsageError: no study of the training split is left.
    """
    folder = options.partial / _FINISHED
    shutil.rmtree(folder, ignore_errors=True)
    chunks, rejections = assemble.collect([result.path for result in results], plan.by_id())
    rejections += plan.rejections
    sentences = assemble.training_sentences(chunks)
    if not sentences:
        assemble.write_rejected(options.rejected, rejections)
        if not any(options.partial.glob(SHARD_FILES)):
            clean(options.partial)
        raise UsageError(
            f"no study of the training split can be used; studies left out: {most_frequent(rejections, plan)}; "
            f"{options.rejected} names each"
        )
    with progress() as bar:
        task = bar.add_task("tokenizing", total=None)
        tokenizer = tokenizer or train_tokenizer(sentences)
        assemble.add_tokens(chunks, tokenizer, options.min_sentences, rejections)
        bar.update(task, description="writing", total=len(chunks), completed=0)
        folder.mkdir()
        info = assemble.write_dataset(
            *(folder, chunks, tokenizer, options.tokenizer, rejections, options.decode, plan.classes),
            advance=lambda: bar.advance(task),
        )
    return {
        **make_report(options, plan, info["splits"], rejections, results),
        "fingerprint": _fingerprint(options, plan, [result.path for result in results]),
    }


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
