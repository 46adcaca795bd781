"""`prior-fast evaluate generation` and `bank`: from the command's arguments to the result files."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prior_fast.config import to_dict
from prior_fast.console import busy, print_table, progress, stdout
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation import learned_tables as tables
from prior_fast.evaluation.bank_purity import bank_purity, prototype_rows
from prior_fast.evaluation.counterfactual import TRUE, measure_errors, summarize
from prior_fast.evaluation.encode import Encoder, Track
from prior_fast.evaluation.evaluate import write_csv
from prior_fast.evaluation.generated_findings import Reports, generated_findings
from prior_fast.evaluation.learned_config import BANK, GENERATION, OWN, LearnedConfig, learned_config
from prior_fast.evaluation.learned_tables import Table
from prior_fast.evaluation.out_folder import METRICS_FILE, replace_results
from prior_fast.evaluation.read_sentences import draw_studies, read_sentences
from prior_fast.evaluation.run_facts import checkpoint_facts, track_with
from prior_fast.files import write_json
from prior_fast.training.checkpoint import Checkpoint, open_checkpoint


@dataclass(frozen=True)
class Measured:
    """The result of a task: the metrics of metrics.json, tables to print, csv files, lines to print below them."""

    metrics: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    files: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def measure(
    task: str, checkpoint_path: Path, data: Path, out: Path, split: str, words: Sequence[str]
) -> dict[str, Any]:
    """Run "generation" or "bank"; write metrics.json and csv files into `out`.

    split: a split of a prepared dataset.
    words: key=value settings of `LearnedConfig`.

    Returns:
        The content of metrics.json.

    Raises:
        UsageError: a setting, the checkpoint or the dataset can't be used, or the checkpoint was not trained so far.
        RunError: an embedding or a reconstructed image is not finite.
    """
    config = learned_config(words, task)
    checkpoint = open_checkpoint(checkpoint_path)
    refuse_untrained(task, checkpoint)
    dataset = PreparedDataset.open(data, split, config.verify)
    started = time.perf_counter()
    encoder = Encoder(checkpoint, config.device, config.batch_size)
    with progress() as bar:
        measured = (_generation if task == GENERATION else _bank)(encoder, dataset, config, track_with(bar))
    unused = {"batch_size", "device", "verify", *(key for other, keys in OWN.items() if other != task for key in keys)}
    report = {
        "task": task,
        "protocol": {name: value for name, value in to_dict(config).items() if name not in unused},
        "checkpoint": checkpoint_facts(checkpoint_path, checkpoint),
        "data": {"path": str(data), "split": split, "studies": len(dataset)},
        "metrics": measured.metrics,
        "device": str(encoder.device),
        "seconds": round(time.perf_counter() - started, 2),
    }
    with replace_results(out) as folder:
        for file in measured.files:
            write_csv(folder / file.name, file.header, file.rows)
        write_json(folder / METRICS_FILE, report)
    for table in measured.tables:
        print_table(table.name, table.header, table.rows)
        stdout.print(table.note)
    for note in measured.notes:
        stdout.print(note)
    stdout.print(f"{', '.join(['metrics.json', *(file.name for file in measured.files)])} are in {out}")
    return report


def refuse_untrained(task: str, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose decoders (generation) or bank (bank) are not trained.

    Raises:
        UsageError: they are not.
    """
    switch, part, first = {
        GENERATION: ("use_reconstruction", "the decoders", 3),
        BANK: ("use_bank", "the bank of prototypes", 2),
    }[task]
    if not getattr(checkpoint.structure, switch):
        raise UsageError(f"{checkpoint.path} was trained with model.{switch}=false, so {part} can't be measured")
    stage = checkpoint.position.stage
    if stage < first:
        raise UsageError(
            f"{checkpoint.path} is from stage {stage}; stage {first} trains {part}: give a checkpoint of stage {first}"
        )


def _bank(encoder: Encoder, dataset: PreparedDataset, config: LearnedConfig, track: Track) -> Measured:
    studies = draw_studies(dataset, config.studies, config.seed)
    reports = [dataset.sentences(int(study)) for study in studies]
    if config.context == "alone":
        reports = [[sentence] for sentence in dict.fromkeys(sentence for report in reports for sentence in report)]
    read = read_sentences(encoder, reports, track("texts", len(reports)))
    with busy("measuring purity"):
        metrics = {"studies": len(studies), **bank_purity(read, config.seed)}
    note = (
        f"{metrics['sentences']} sentences of {len(studies)} reports; {metrics['prototypes_used']} of "
        f"{metrics['prototypes']} prototypes are used, as unevenly as if {metrics['prototypes_used_effectively']:.1f} "
        "were used equally"
    )
    return Measured(metrics, [tables.bank_table(metrics)], [tables.prototypes_file(prototype_rows(read))], [note])


def _generation(encoder: Encoder, dataset: PreparedDataset, config: LearnedConfig, track: Track) -> Measured:
    studies = draw_studies(dataset, config.studies, config.seed)
    measured = Measured({"studies": len(studies)})
    _reconstruction(measured, encoder, dataset, studies, config, track)
    if encoder.uses_bank:
        _generated(measured, encoder, dataset, studies, config, track)
    else:
        measured.metrics["generated_prototypes"] = {"note": "left out: model.use_bank=false"}
        measured.notes.append("generated prototypes: left out, the model was trained with model.use_bank=false")
    return measured


def _reconstruction(
    measured: Measured,
    encoder: Encoder,
    dataset: PreparedDataset,
    studies: np.ndarray,
    config: LearnedConfig,
    track: Track,
) -> None:
    errors = measure_errors(encoder, dataset, studies, config.seed, track)
    if errors.targets:
        encoder.require_finite("reconstructed images", errors.squared[TRUE])
    skipped = ", ".join(f"{count} because {reason}" for reason, count in errors.skipped.items())
    if not errors.targets:
        reason = f"no annotated finding could be measured ({skipped or 'these studies have no annotations'})"
        measured.metrics["reconstruction"] = {"measured": 0, "skipped": dict(errors.skipped), "note": reason}
        measured.notes.append(f"reconstruction: left out, {reason}")
        return
    summary = measured.metrics["reconstruction"] = summarize(errors)
    measured.tables.append(tables.reconstruction_table(summary))
    measured.files.append(tables.reconstruction_file(errors))
    if skipped:
        measured.notes.append(f"reconstruction: of {summary['targets']} annotated findings left out {skipped}")


def _generated(
    measured: Measured,
    encoder: Encoder,
    dataset: PreparedDataset,
    studies: np.ndarray,
    config: LearnedConfig,
    track: Track,
) -> None:
    train = PreparedDataset.open(dataset.root, "train")
    rows = draw_studies(train, config.bank_studies, config.seed)
    read = read_sentences(encoder, [train.sentences(int(row)) for row in rows], track("training texts", len(rows)))
    other = _other_split(dataset)
    with busy("reports"):
        validation = Reports.of(encoder, other, draw_studies(other, config.bank_studies, config.seed))
        reports = Reports.of(encoder, dataset, studies)
    generated = generated_findings(encoder, reports, validation, read, config.seed, track)
    silence = generated.metrics["silence"]
    silence["split"] = other.split
    measured.metrics["generated_prototypes"] = generated.metrics
    measured.tables.append(tables.generated_table(generated.metrics))
    measured.files.append(tables.generated_file(reports, generated))
    measured.notes.append(
        f"{generated.metrics['speaking_queries']:.1f} of {generated.metrics['queries']} queries speak (reports have "
        f"{generated.metrics['sentences']:.1f} sentences); an L1 norm below {silence['l1_norm_below']:.4g} is silent, "
        f"chosen on {other.split}: AUROC of the norm {tables.number(silence['auroc_of_norm'])}, chance 0.500"
    )


def _other_split(dataset: PreparedDataset) -> PreparedDataset:
    """The split on which the threshold is chosen: not the one that is measured, if there is another."""
    for name in ("validate", "train"):
        if name != dataset.split and dataset.info["splits"].get(name, {}).get("studies"):
            return PreparedDataset.open(dataset.root, name)
    return dataset
