"""Preparing in shards: each job prepares its share of the chunks, on any machine with access to the same folders.

Shard I of N takes the chunks I - 1, I - 1 + N, ..., so the chunks are those of a run without shards. All shards write
into `<out>.partial`. Each shard also writes a record there, `shard-I-of-N.json`, with its options and, once it is
complete, the names of its chunks. `merge.py` makes the dataset from the shards.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import PIL

from prior_fast.errors import UsageError
from prior_fast.files.sealed import read_sealed, write_sealed
from prior_fast.prepare.output import claim, is_occupied, remove_share
from prior_fast.prepare.shard import Shard
from prior_fast.prepare.studies import assemble, pipeline
from prior_fast.prepare.studies.chunks import RULES_VERSION, STEM, ChunkTask, chunk_path
from prior_fast.prepare.studies.options import PrepareOptions, check_options
from prior_fast.prepare.studies.plan import StudyPlan
from prior_fast.prepare.studies.probe import check_strict, probe
from prior_fast.prepare.studies.summary import make_report
from prior_fast.radiology.limits import pixel_limit

_FORMAT = "prior-fast-shard-2"


@dataclass(frozen=True)
class ShardRecord:
    """The inputs of a shard, and its chunks.

    Attributes:
        settings: the values that must be the same in all shards, by the names that the user knows.
        layout, arguments: those of the source.
        chunks: the names of its chunks; None until all are prepared.
    """

    shard: Shard
    settings: dict[str, Any]
    layout: str
    arguments: dict[str, Any]
    chunks: list[str] | None = None


def prepare_shard(options: PrepareOptions, shard: Shard) -> dict[str, Any]:
    """Prepare the shard's studies in `<out>.partial`; existing chunks are kept.

    Returns:
        A report like that of `prepare_studies`, for this shard, with "shard" and "partial". If the merged dataset is
        there already, its report, with "already_done": True.

    Raises:
        UsageError: an option or the tree can't be used, or the folder holds shards of another run.
        RunError: a file is broken under `strict`, the disk is full, or another process prepares this shard or `out`.
        Interrupted: Ctrl-C.
    """
    check_options(options)
    with claim(options.out, shard) as out:
        return _prepare_shard(replace(options, out=out), shard)


def _prepare_shard(options: PrepareOptions, shard: Shard) -> dict[str, Any]:
    begin = time.perf_counter()
    pipeline.check_vacant(options.out)
    plan = options.source.read()
    tasks = pipeline.cut_plan(options, plan)
    if is_occupied(options.out):
        return pipeline.existing(options, plan, [chunk_path(task) for task in tasks])
    check_strict(options, plan)
    probe(options, plan)
    pipeline.load_named_tokenizer(options.tokenizer)  # if it can't be loaded, fail here and not in the merge
    record = _new_record(options, plan, tasks, shard)
    # The merge refuses a damaged record; until then its shard may have written it again.
    others = [other for other in read_records(options.partial, damaged=False) if other.shard != shard]
    check_alike([*others, record], options.partial)
    pipeline.check_partial(options)
    share = shard.share(tasks)
    pipeline.check_space(options, plan, share, dataset=False)
    remove_share(options.partial, STEM, [task.index for task in share])
    _write_record(options.partial, record)
    results = pipeline.prepare_chunks(options, share)
    chunks, rejections = assemble.collect([result.path for result in results], plan.by_id())
    report = make_report(options, plan, assemble.count_splits(chunks), rejections, results)
    _write_record(options.partial, replace(record, chunks=[result.path.name for result in results]))
    seconds = round(time.perf_counter() - begin, 3)
    return {**report, "seconds": seconds, "shard": str(shard), "partial": str(options.partial)}


def common_settings(options: PrepareOptions, plan: StudyPlan, tasks: Sequence[ChunkTask]) -> dict[str, Any]:
    """The values that must be the same in all shards, by the names that the user knows."""
    return {
        "source tables": plan.digest[:16],
        "layout": options.source.layout,
        **{f"--{name.replace('_', '-')}": value for name, value in options.source.arguments.items()},
        "--min-sentences": options.min_sentences,
        "--sections": options.sections,
        "--tokenizer": options.tokenizer,
        "files of the tokenizer": pipeline.tokenizer_files(options.tokenizer),
        "--decode": options.decode,
        "--max-image-pixels": pixel_limit(),
        "number of chunks": len(tasks),
        "Pillow's version": PIL.__version__,
        "version of the rules": RULES_VERSION,
    }


def read_records(partial: Path, damaged: bool = True) -> list[ShardRecord]:
    """The records of the shards in a folder, in their order.

    Args:
        damaged: whether a record that can't be read is an error; False to ignore it.

    Raises:
        UsageError: a record can't be read.
    """
    records = []
    for path in partial.glob(pipeline.SHARD_FILES):
        try:
            records.append(_read_record(path))
        except (UsageError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if damaged:
                reason = f"is no record of a shard ({error}); remove it and run that shard again"
                raise UsageError(f"{path} {reason}") from error
    return sorted(records, key=lambda record: record.shard)


def _read_record(path: Path) -> ShardRecord:
    stored = read_sealed(path)
    if stored.pop("format") != _FORMAT:
        raise ValueError("it has another format")
    shard = stored.pop("shard")
    return ShardRecord(Shard.parse(f"{shard['index']}/{shard['count']}"), **stored)


def check_alike(records: Sequence[ShardRecord], partial: Path) -> None:
    """Refuse incompatible shards.

    Raises:
        UsageError: the number of shards or an option differs; the message names two shards and the difference.
    """
    advice = f"give the same to every shard, another --out, or remove {partial} to begin again"
    first, *others = records
    for other in others:
        if other.shard.count != first.shard.count:
            raise UsageError(f"{partial} has shard {first.shard} and shard {other.shard}, of another number; {advice}")
        for name in first.settings | other.settings:
            here, there = (record.settings.get(name) for record in (first, other))
            if here != there:
                difference = f"{name}: {_show(here)} and {_show(there)}"
                raise UsageError(f"shard {first.shard} and shard {other.shard} differ ({difference}); {advice}")


def _new_record(options: PrepareOptions, plan: StudyPlan, tasks: Sequence[ChunkTask], shard: Shard) -> ShardRecord:
    common = common_settings(options, plan, tasks)
    return ShardRecord(shard, common, options.source.layout, dict(options.source.arguments))


def _write_record(partial: Path, record: ShardRecord) -> None:
    name = pipeline.SHARD_FILES.replace("*", str(record.shard.index), 1).replace("*", str(record.shard.count), 1)
    write_sealed(partial / name, {"format": _FORMAT, **asdict(record)})


def _show(value: Any) -> str:
    return "others" if isinstance(value, list) else "none" if value is None else str(value)
