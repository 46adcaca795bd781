"""One evaluation from the command's arguments to its files."""

import csv
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from prior_fast.config import to_dict
from prior_fast.console import print_table, progress, stdout
from prior_fast.data.store import PreparedDataset
from prior_fast.evaluation.config import EvaluationConfig, evaluation_config
from prior_fast.evaluation.encode import Advance, Encoder, first_image_rows
from prior_fast.evaluation.pointing import pointing_game
from prior_fast.evaluation.retrieval import retrieval
from prior_fast.evaluation.selection import UNCERTAIN_IS_POSITIVE, Selection, select_studies
from prior_fast.evaluation.zero_shot import Outcome, zero_shot
from prior_fast.files import atomic_path, write_json
from prior_fast.training.checkpoint import open_checkpoint

TASKS: dict[str, Callable[..., Outcome]] = {"zero-shot": zero_shot, "retrieval": retrieval}
CANDIDATES = {
    "zero-shot": "the classes, for each image",
    "retrieval": "image to text: the texts, for each image; text to image: the images, for each text",
}


def evaluate(
    task: str, checkpoint_path: Path, data: Path, out: Path, split: str, words: Sequence[str]
) -> dict[str, Any]:
    """Run "zero-shot" or "retrieval", write metrics.json, predictions.csv and selection.csv into `out`, print a table.

    words: key=value settings of `EvaluationConfig`.

    Returns:
        What metrics.json says.

    Raises:
        UsageError: a setting, the checkpoint or the dataset can't be used.
    """
    evaluation_config(words)  # a misspelled setting is told before anything is read
    checkpoint = open_checkpoint(checkpoint_path)
    config = evaluation_config(words, checkpoint.config.preset)
    dataset = PreparedDataset.open(data, split)
    selection = select_studies(dataset, config.classes, config.per_class, config.seed)
    started = time.perf_counter()
    encoder = Encoder(checkpoint, config.device, config.batch_size)
    with progress() as bar:

        def track(name: str, total: int) -> Advance:
            task_id = bar.add_task(name, total=total)
            return lambda count: bar.advance(task_id, count)

        rows = first_image_rows(dataset, selection.studies)
        images = encoder.images(dataset.images, rows, track("images", len(rows)))
        outcome = TASKS[task](encoder, dataset, selection, images, config, track)
        pointing = pointing_game(encoder, dataset, config.classes, config.prompt) if task == "zero-shot" else None
    result = {
        "task": task,
        "protocol": protocol(task, config, encoder),
        "checkpoint": {
            "path": str(checkpoint_path),
            "used": checkpoint.path.name,
            "preset": checkpoint.config.preset,
            "stage": checkpoint.position.stage,
            "total_steps": checkpoint.position.total_steps,
        },
        "data": {"path": str(data), "split": split, "studies": len(dataset), **selected(selection, config)},
        "metrics": outcome.metrics,
        **({"pointing_game": pointing} if pointing else {}),
        "device": str(encoder.device),
        "seconds": round(time.perf_counter() - started, 2),
    }
    ids = dataset.study_ids[selection.studies].tolist()
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "selection.csv", ("study_id", "class"), zip(ids, (config.classes[c] for c in selection.truth)))
    write_csv(out / "predictions.csv", outcome.header, outcome.predictions)
    write_json(out / "metrics.json", result)
    show(task, outcome, pointing, result, out)
    return result


def protocol(task: str, config: EvaluationConfig, encoder: Encoder) -> dict[str, Any]:
    """What was measured and how, so that the numbers can be compared with others."""
    uncertain = [name for name in config.classes if name in UNCERTAIN_IS_POSITIVE]
    facts = {
        **{name: value for name, value in to_dict(config).items() if name not in ("batch_size", "device")},
        "score": "softmax(exp(logit_scale) * cosine) + local_weight * softmax(mean attention weight, both ways)",
        "softmax_over": CANDIDATES[task],
        "selection": "exactly one of the classes is positive; blank counts as absent, uncertain as present for "
        f"{', '.join(uncertain) or 'no class'} and as absent for the others (the rule of CheXpert 5x200)",
        "image": "the first frontal image of each study",
        "bank": f"read without noise, tau {encoder.tau:.4g}"
        if encoder.uses_bank
        else "not read: not trained in stage 1",
    }
    if task == "retrieval":
        facts["ties"] = "equal scores count as the mean over all orders among them"
        facts["class_level"] = "a hit is a candidate of the query's class, the query's own study included"
        facts["instance_level"] = "a hit is the query's own study; identical reports are one text"
        facts.pop("prompt")
    if encoder.model.config.attention == "softmax":
        facts["local_score"] = "left out: the mean weight of softmax attention is the same for all images"
    return facts


def selected(selection: Selection, config: EvaluationConfig) -> dict[str, Any]:
    """How many studies of each class were taken, and of how many."""
    return {
        "selected": len(selection.studies),
        "selected_per_class": dict(zip(config.classes, selection.counts())),
        "available_per_class": dict(zip(config.classes, selection.pools)),
    }


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table, whole or not at all."""
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def show(task: str, outcome: Outcome, pointing: dict[str, Any] | None, result: dict[str, Any], out: Path) -> None:
    """Print the short table for people."""
    table = list(outcome.table)
    if pointing:
        rows = [("all findings", pointing["overall"]), *pointing["findings"].items()]
        table += [
            (f"pointing game, {kind}: {name} ({row['targets']})", f"{row[key]:.3f}", f"{row['chance']:.3f}")
            for kind, key in (("attention", "hit_rate"), ("its departure", "departure_hit_rate"))
            for name, row in (rows[:1] if key == "hit_rate" else rows)
        ]
    data = result["data"]
    title = f"{task}: {data['selected']} studies of the {data['split']} split, {result['checkpoint']['used']}"
    print_table(title, ("metric", "value", "chance"), table)
    stdout.print(f"metrics.json, predictions.csv and selection.csv are in {out}")
