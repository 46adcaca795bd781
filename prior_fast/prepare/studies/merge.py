"""Merging shards into a dataset, which is identical to that of a run without shards."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prior_fast.console import progress
from prior_fast.errors import RunError, UsageError
from prior_fast.files.space import need_space
from prior_fast.prepare.output import claim, is_occupied
from prior_fast.prepare.studies import pipeline
from prior_fast.prepare.studies.chunks import ChunkResult, ChunkTask, sound_record
from prior_fast.prepare.studies.options import PrepareOptions, check_options
from prior_fast.prepare.studies.plan import Source
from prior_fast.prepare.studies.shards import ShardRecord, check_alike, common_settings, read_records

# The inputs that the merge reads again. They must not have changed since the shards were prepared.
_READ_AGAIN = ("source tables", "files of the tokenizer", "number of chunks", "version of the rules")


def merge_shards(out: Path) -> dict[str, Any]:
    """Make the dataset `out` from the shards in `<out>.partial`.

    The merge trains the tokenizer, if one is to be trained, and tokenizes every sentence. It reads the source's tables
    again, but not its images and reports. If the shards are merged already, the dataset is not changed, and the result
    has "already_done": True.

    Returns:
        The content of report.json.

    Raises:
        UsageError: a shard is missing or incomplete, shards are incompatible, the source has changed since, or `out`
            holds something else.
        RunError: a chunk is damaged, the disk is full, or a shard is still at work.
        Interrupted: Ctrl-C.
    """
    check_options(PrepareOptions(Source(""), out))
    with claim(out) as resolved:
        return _merge(resolved)


def _merge(out: Path) -> dict[str, Any]:
    begin = time.perf_counter()
    options = PrepareOptions(Source(""), out)
    records = read_records(options.partial)
    if not records:
        return _merged_before(options)
    _check_complete(records, options)
    options = _settings(records[0], out)
    plan = options.source.read()
    tasks = pipeline.cut_plan(options, plan)
    now = common_settings(options, plan, tasks)
    changed = [name for name in _READ_AGAIN if now[name] != records[0].settings[name]]
    if changed:
        raise UsageError(
            f"since the shards were prepared, this has changed: {', '.join(changed)}; run all shards again"
        )
    paths = _chunk_paths(records, tasks, options)
    if is_occupied(out):
        report = pipeline.existing(options, plan, paths)
        pipeline.clean(options.partial)
        return report
    tokenizer = pipeline.load_named_tokenizer(options.tokenizer)
    results = _read_chunks(paths, tasks, records)
    # The chunks are almost only images, which the dataset has again.
    need_space(out, sum(path.stat().st_size for path in paths), "merging the shards")
    return pipeline.make_dataset(
        *(options, plan, results, tokenizer),
        facts=lambda: {"seconds": round(time.perf_counter() - begin, 3), "shards": len(records)},
    )


def _merged_before(options: PrepareOptions) -> dict[str, Any]:
    """The report of a dataset that was merged earlier and whose shards were removed."""
    try:
        report = json.loads((options.out / pipeline.REPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        report = {}
    if "shards" in report:
        return {**report, "already_done": True}
    raise UsageError(
        f"there are no shards in {options.partial}; prepare them first, each with "
        f"`prior-fast prepare LAYOUT --shard I/N --out {options.out} ...`, and merge with the same --out"
    )


def _check_complete(records: Sequence[ShardRecord], options: PrepareOptions) -> None:
    check_alike(records, options.partial)
    count = records[0].shard.count
    there = {record.shard.index for record in records}
    missing = [f"{index}/{count}" for index in range(1, count + 1) if index not in there]
    incomplete = [str(record.shard) for record in records if record.chunks is None]
    if missing or incomplete:
        lacks = ((missing, "missing"), (incomplete, "not complete"))
        shown = ", ".join(f"{_names(shards)} {what}" for shards, what in lacks if shards)
        raise UsageError(
            f"{options.partial} can't be merged yet: {shown}; "
            f"run `prior-fast prepare {records[0].layout} --shard {(missing + incomplete)[0]} ...` as the others"
        )


def _settings(record: ShardRecord, out: Path) -> PrepareOptions:
    return PrepareOptions(
        source=Source(record.layout, record.arguments),
        out=out,
        tokenizer=record.settings["--tokenizer"],
        min_sentences=record.settings["--min-sentences"],
        decode=record.settings["--decode"],
        sections=record.settings["--sections"],
    )


def _chunk_paths(records: Sequence[ShardRecord], tasks: Sequence[ChunkTask], options: PrepareOptions) -> list[Path]:
    """The files of all chunks, in their order, as the shards name them."""
    names: dict[int, str] = {}
    for record in records:
        share = record.shard.share(tasks)
        chunks = record.chunks or []
        fits = len(chunks) == len(share) and all(
            name.startswith(f"chunk-{task.index:06d}-") for name, task in zip(chunks, share)
        )
        if not fits:
            raise UsageError(f"shard {record.shard} lists other chunks than its share; run it again, then merge")
        names |= {task.index: name for name, task in zip(chunks, share)}
    return [options.partial / names[task.index] for task in tasks]


def _read_chunks(
    paths: Sequence[Path], tasks: Sequence[ChunkTask], records: Sequence[ShardRecord]
) -> list[ChunkResult]:
    """The results of all chunks, as in a run without shards. A chunk must be undamaged and have each study once."""
    results, damaged = [], []
    with progress() as bar:
        checking = bar.add_task("checking", total=len(tasks))
        for path, task in zip(paths, tasks):
            shard = records[task.index % len(records)].shard
            stored = sound_record(path)
            if stored is None:
                damaged.append(shard)
            elif _study_ids(stored) != sorted(study.study_id for study in task.studies):
                raise RunError(f"{path} misses studies of its chunk; remove it, run shard {shard} again, then merge")
            else:
                facts = (stored["decoded"], stored["seconds"], None, stored["other_encoding"])
                results.append(ChunkResult(path, len(task.studies), *facts))
            bar.advance(checking)
    if damaged:
        shards = _names([str(shard) for shard in sorted(set(damaged))])
        raise RunError(
            f"{len(damaged)} chunk(s) of {shards} are missing or damaged; run that again (it prepares only these "
            "chunks), then merge"
        )
    return results


def _study_ids(stored: dict[str, Any]) -> list[int]:
    """The ids of all studies in a chunk's record, kept or left out, with repetitions."""
    left_out = [row["study_id"] for row in stored["rejected"] if row["whole_study"]]
    return sorted([*(study["study_id"] for study in stored["studies"]), *left_out])


def _names(shards: Sequence[str]) -> str:
    shown = ", ".join(shards[:8]) + (f" and {len(shards) - 8} more" if len(shards) > 8 else "")
    return f"shard{'s' if len(shards) > 1 else ''} {shown}"
