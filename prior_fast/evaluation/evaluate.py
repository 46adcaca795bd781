"""Running one evaluation: from the command's arguments to the result files."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from prior_fast.console import print_table, progress, stdout
from prior_fast.evaluation.config import RETRIEVAL, ZERO_SHOT, EvaluationConfig, evaluation_config, keys_of
from prior_fast.evaluation.dataset_config import dataset_config, why_by_study
from prior_fast.evaluation.encode import Encoder
from prior_fast.evaluation.evaluation_source import EvaluationSource, open_evaluation_source
from prior_fast.evaluation.out_folder import replace_results
from prior_fast.evaluation.pointing import pointing_game
from prior_fast.evaluation.prompts import make_prompts
from prior_fast.evaluation.protocol import protocol
from prior_fast.evaluation.result import EvaluationResult, EvaluationSet
from prior_fast.evaluation.retrieval import retrieval
from prior_fast.evaluation.run_facts import checkpoint_facts, track_with
from prior_fast.evaluation.selection import Chosen, choose, choose_studies, open_reports
from prior_fast.evaluation.zero_shot import zero_shot
from prior_fast.files import write_json, write_text
from prior_fast.tables import csv_text
from prior_fast.training.checkpoint import open_checkpoint

TASKS: dict[str, Callable[..., EvaluationResult]] = {ZERO_SHOT: zero_shot, RETRIEVAL: retrieval}


def evaluate(
    task: str, checkpoint_path: Path, data: Path, out: Path, split: str, words: Sequence[str]
) -> dict[str, Any]:
    """Run "zero-shot" or "retrieval"; write metrics.json, predictions.csv, the selection and pictures into `out`.

    They replace the results of an earlier evaluation there. The caller holds `out` (`out_folder.hold_out`).

    split: a split of a prepared dataset, or a part of a labelled dataset's split.
    words: key=value settings of `EvaluationConfig`.

    Returns:
        The content of metrics.json.

    Raises:
        UsageError: a setting, the checkpoint or a dataset can't be used.
    """
    given = evaluation_config(words, task=task)  # reports a misspelled setting before anything is read
    checkpoint = open_checkpoint(checkpoint_path)
    source = open_evaluation_source(data, split, given.part_of, given.verify)
    config = dataset_config(task, source, checkpoint, words)
    images, reports = _choose(task, source, config)
    notes = list(images.notes)
    if reports is not None and reports is not images:
        notes += [f"reports: {note}" for note in reports.notes]
    if config.by == "study" and "by" not in keys_of(words):
        notes.append(f"{why_by_study(source)}: retrieval is by study")
    started = time.perf_counter()
    encoder = Encoder(checkpoint, config.device, config.batch_size)
    pointing = None
    with progress() as bar:
        evaluation_set = EvaluationSet(images, reports)
        result = TASKS[task](encoder, evaluation_set, config, track_with(bar))
        if task == ZERO_SHOT and encoder.aligns_locally:
            pointing = pointing_game(encoder, images.source, config.classes, config.prompt)
    report = {
        "task": task,
        "protocol": {**protocol(task, config, encoder, evaluation_set), **result.facts},
        "checkpoint": checkpoint_facts(checkpoint_path, checkpoint),
        "data": images.facts(),
        **({"reports": reports.facts()} if reports is not None and reports is not images else {}),
        **({"notes": notes} if notes else {}),
        "metrics": result.metrics,
        **({"pointing_game": pointing} if pointing else {}),
        "device": str(encoder.device),
        "seconds": round(time.perf_counter() - started, 2),
    }
    with replace_results(out) as folder:
        _write(folder, images, reports, result, report)
    show(task, result, pointing, report, images, out)
    return report


def _choose(task: str, source: EvaluationSource, config: EvaluationConfig) -> tuple[Chosen, Chosen | None]:
    """The images, and the reports for retrieval: the same object if the reports are those of the images' studies."""
    if task == ZERO_SHOT:
        make_prompts(config)  # reports errors of a prompt file before images are read
        return choose(source, config, config.per_class), None
    if config.by == "study":
        images = reports = choose_studies(source, config)
    else:
        images = choose(source, config, config.per_class)
        reports = open_reports(images, config)
    if not config.rank_within:
        return images, reports
    # A draw is ordered by class, so its batches would hold one class each. Ids of a file keep the file's order.
    mixed = images if config.image_ids else images.shuffled(config.seed)
    if reports is images:
        return mixed, mixed
    return mixed, reports if config.report_ids else reports.shuffled(config.seed)


def _write(out: Path, images: Chosen, reports: Chosen | None, result: EvaluationResult, report: dict[str, Any]) -> None:
    lists = (
        {"selection.csv": images}
        if reports is None
        else {"selection_images.csv": images, "selection_reports.csv": reports}
    )
    for name, chosen in lists.items():
        header = (chosen.source.id_column, *(["class"] if chosen.answers else []))
        write_csv(out / name, header, zip(chosen.ids, *([chosen.class_names] if chosen.answers else [])))
    write_csv(out / "predictions.csv", result.header, result.predictions)
    for name, draw in result.pictures.items():
        draw(out / name)
    write_json(out / "metrics.json", report)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table, whole or not at all, safe to open in a spreadsheet."""
    write_text(path, csv_text([header, *rows]))


def show(
    task: str,
    result: EvaluationResult,
    pointing: dict[str, Any] | None,
    report: dict[str, Any],
    images: Chosen,
    out: Path,
) -> None:
    """Print a short table of the result."""
    table = list(result.table)
    if pointing:
        rows = [("all findings", pointing["overall"]), *pointing["findings"].items()]
        table += [
            (f"pointing game, {kind}: {name} ({row['targets']})", f"{row[key]:.3f}", f"{row['chance']:.3f}")
            for kind, key in (("attention", "hit_rate"), ("its departure", "departure_hit_rate"))
            for name, row in (rows[:1] if key == "hit_rate" else rows)
        ]
    title = f"{task}: {len(images)} of {images.source.where}, {report['checkpoint']['used']}"
    print_table(title, ("metric", "value", "chance"), table)
    for name, facts in (("images", report["data"]), ("reports", report.get("reports"))):
        if facts and "selected_per_class" in facts:
            counts = ", ".join(f"{key} {count}" for key, count in facts["selected_per_class"].items())
            stdout.print(f"{name}: {counts}")
    for note in report.get("notes", ()):
        stdout.print(f"note: {note}")
    stdout.print(f"metrics.json, predictions.csv, the selection and {len(result.pictures)} pictures are in {out}")
