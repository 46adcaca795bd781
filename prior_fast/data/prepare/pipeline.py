"""From a MIMIC-CXR tree to a prepared dataset: in parallel, to be stopped and started again, whole or absent."""

import errno
import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prior_fast.console import progress
from prior_fast.data.prepare import assemble
from prior_fast.data.prepare.chunks import ChunkResult, ChunkTask, chunk_path, make_tasks, prepare_chunk
from prior_fast.data.prepare.mimic import Plan, read_plan
from prior_fast.data.prepare.records import SPLITS, TRAIN_TOKENIZER, Rejection
from prior_fast.data.store import PreparedDataset
from prior_fast.errors import RunError, UsageError
from prior_fast.files import write_json
from prior_fast.processes import parallel_map

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Settings:
    """What to prepare and how.

    Attributes:
        images: root of the tree of images, or its `files` folder.
        out: the folder of the dataset to make.
        reports: as `images`, for the reports; None where they lie with the images.
        workers: processes that decode; 1 works in this process.
        strict: stop at the first file that is missing or broken.
        tokenizer: "train", or a Hugging Face name or folder.
        min_sentences: reports with fewer are left out.
    """

    images: Path
    out: Path
    reports: Path | None = None
    workers: int = 1
    strict: bool = False
    tokenizer: str = TRAIN_TOKENIZER
    min_sentences: int = 4


def prepare_mimic(settings: Settings) -> dict[str, Any]:
    """Make the prepared dataset `settings.out`; returns what its report.json says.

    Finished chunks are kept in `<out>.partial` until the dataset is whole, so a run that was stopped goes on from
    there. A dataset of the very same inputs and settings that is already there is left as it is; what is returned then
    has "already_done": True.

    Raises:
        UsageError: a setting or the tree can't be used.
        RunError: a broken file under `strict`, a full disk, or stopped on the way.
    """
    begin = time.perf_counter()
    _check(settings)
    plan = read_plan(settings.images, settings.reports)
    partial = settings.out.with_name(f"{settings.out.name}.partial")
    tasks = make_tasks(plan.studies, plan.images, plan.reports, settings.min_sentences, partial)
    if settings.out.is_dir() and any(settings.out.iterdir()):
        return _existing(settings, plan, tasks)
    tokenizer = _load_tokenizer(settings.tokenizer)
    with _explained(settings):
        partial.mkdir(parents=True, exist_ok=True)
        results = _prepare(settings, tasks)
        finished = partial / "dataset"
        report = _assemble(settings, plan, results, tokenizer, finished)
        report["seconds"] = round(time.perf_counter() - begin, 3)
        write_json(finished / REPORT_FILE, report)
        finished.rename(settings.out)
        for leftover in (*partial.glob("chunk-*.npz"), *partial.glob(".chunk-*.partial")):
            leftover.unlink()
        if not any(partial.iterdir()):
            partial.rmdir()
    return report


def _check(settings: Settings) -> None:
    if settings.workers < 1:
        raise UsageError(f"--workers must be 1 or more, not {settings.workers}")
    if settings.min_sentences < 1:
        raise UsageError(f"--min-sentences must be 1 or more, not {settings.min_sentences}")
    if settings.out.exists() and not settings.out.is_dir():
        raise UsageError(f"--out {settings.out} is a file; give a folder that does not exist yet")


def _load_tokenizer(name: str) -> "PreTrainedTokenizerFast | None":
    """The tokenizer of that name, None when one is to be trained; transformers is slow to import, so late."""
    if name == TRAIN_TOKENIZER:
        return None
    from prior_fast.data.prepare.tokenizer import load_tokenizer

    return load_tokenizer(name)


def _train_tokenizer(sentences: Sequence[str]) -> "PreTrainedTokenizerFast":
    from prior_fast.data.prepare.tokenizer import train_tokenizer

    return train_tokenizer(sentences)


def _existing(settings: Settings, plan: Plan, tasks: list[ChunkTask]) -> dict[str, Any]:
    """The report of the dataset that is already at --out, if it is the one asked for."""
    refusal = f"--out {settings.out} is not empty; give a folder that does not exist yet, or remove it"
    try:
        report = json.loads((settings.out / REPORT_FILE).read_text(encoding="utf-8"))
        PreparedDataset.open(settings.out)
    except (OSError, ValueError, UsageError) as error:
        raise UsageError(refusal) from error
    if report.get("fingerprint") != _fingerprint(settings, plan, [chunk_path(task) for task in tasks]):
        raise UsageError(f"{refusal}: it holds a dataset prepared from other inputs or with other settings")
    if settings.strict and report["broken_files"]:
        count = report["broken_files"]
        raise RunError(f"--strict: {settings.out} is there already and leaves out {count} broken file(s)")
    return {**report, "already_done": True}


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    """Turn what may stop a run on its way into a line that says what to do."""
    again = "start the same command again to go on from there"
    try:
        yield
    except KeyboardInterrupt as error:
        raise RunError(f"stopped; {again}") from error
    except BrokenProcessPool as error:
        raise RunError(f"a worker process died, perhaps for lack of memory; {again}, with fewer --workers") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"no space is left for {settings.out}; free some and {again}") from error
        raise


def _prepare(settings: Settings, tasks: list[ChunkTask]) -> list[ChunkResult]:
    results = []
    with progress() as bar:
        task = bar.add_task("reading studies", total=sum(len(chunk.studies) for chunk in tasks))
        for result in parallel_map(prepare_chunk, tasks, settings.workers):
            broken = result.first_broken
            if settings.strict and broken:
                raise RunError(f"--strict: study {broken.study_id}, {broken.file}: {broken.reason}")
            results.append(result)
            bar.advance(task, result.studies)
    return results


def _assemble(
    settings: Settings,
    plan: Plan,
    results: list[ChunkResult],
    tokenizer: "PreTrainedTokenizerFast | None",
    folder: Path,
) -> dict[str, Any]:
    """Write the dataset into `folder`, all but its report; returns the report."""
    shutil.rmtree(folder, ignore_errors=True)
    studies = {study.study_id: study for study in plan.studies}
    chunks, rejections = assemble.collect([result.path for result in results], studies)
    rejections += plan.rejections
    sentences = assemble.training_sentences(chunks)
    if not sentences:
        raise UsageError(f"no study of the training split can be used; studies left out: {_most_frequent(rejections)}")
    with progress() as bar:
        task = bar.add_task("tokenizing", total=None)
        tokenizer = tokenizer or _train_tokenizer(sentences)
        assemble.add_tokens(chunks, tokenizer, plan.reports, settings.min_sentences, rejections)
        bar.update(task, description="writing", total=len(chunks), completed=0)
        folder.mkdir()
        info = assemble.write_dataset(
            folder, chunks, tokenizer, settings.tokenizer, rejections, advance=lambda: bar.advance(task)
        )
    decoded, seconds = sum(result.decoded for result in results), sum(result.seconds for result in results)
    return {
        "images": str(settings.images),
        "reports": str(settings.reports or settings.images),
        "fingerprint": _fingerprint(settings, plan, [result.path for result in results]),
        "splits": {split: info["splits"][split] for split in SPLITS},
        "rejected": _count_rejections(rejections),
        "broken_files": sum(rejection.broken for rejection in rejections),
        "notes": plan.notes,
        "workers": settings.workers,
        "images_per_second_per_core": round(decoded / seconds, 2) if seconds else None,
    }


def _fingerprint(settings: Settings, plan: Plan, chunks: Sequence[Path]) -> str:
    """SHA-256 over all that the dataset is made from; the names of the chunks stand for studies and settings."""
    trained = settings.tokenizer == TRAIN_TOKENIZER
    files = [] if trained else sorted(path for path in Path(settings.tokenizer).rglob("*") if path.is_file())
    tokenizer = [settings.tokenizer, [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]]
    facts = [plan.tables_digest, tokenizer, [path.name for path in chunks]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _count_rejections(rejections: list[Rejection]) -> list[dict[str, Any]]:
    """Studies and single files left out for each kind of reason, the most frequent first."""
    studies = Counter(rejection.kind for rejection in rejections if rejection.whole_study)
    files = Counter(rejection.kind for rejection in rejections if not rejection.whole_study)
    return [
        {"reason": kind, "studies": studies[kind], "files": files[kind]}
        for kind, _ in sorted((studies + files).items(), key=lambda item: (-item[1], item[0]))
    ]


def _most_frequent(rejections: list[Rejection]) -> str:
    counts = _count_rejections([rejection for rejection in rejections if rejection.whole_study])[:3]
    return ", ".join(f"{count['reason']} ({count['studies']})" for count in counts) or "none"
