"""Running a fine-tuned task on all of its splits, and writing the files that summarize them."""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prior_fast.config import to_dict
from prior_fast.console import busy, print_table, progress, stdout
from prior_fast.data.labelled_dataset import LabelledDataset, Split
from prior_fast.downstream.claim import FREE, claim, describe
from prior_fast.downstream.config import find_preset
from prior_fast.downstream.finetune import Place, fine_tune
from prior_fast.downstream.pictures import draw_curves
from prior_fast.downstream.pretrained import Pretrained
from prior_fast.downstream.settings.base import FineTuneConfig
from prior_fast.downstream.summary import over_splits
from prior_fast.downstream.targets import choose_splits
from prior_fast.downstream.task import Task
from prior_fast.errors import RunError, UsageError
from prior_fast.files import write_json
from prior_fast.files.claim import remove_leftovers
from prior_fast.training.distributed import choose_device

HIDDEN = ("loss",)  # metrics that the printed table leaves out


def run_splits(
    name: str,
    pretrained: Pretrained,
    dataset: LabelledDataset,
    config: FineTuneConfig,
    out: Path,
    asked_to_stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """Fine-tune on every split, write metrics.json and the pictures into `out`, print a table.

    Returns:
        The content of metrics.json; None if the run was stopped before the end.
    """
    with busy("reading images and annotations"):
        ready = make_ready(name, pretrained, dataset, config)
    task, device, splits = ready.task, ready.device, tuple(ready.rows)
    claim(out, describe(name, config, pretrained, dataset))
    remove_leftovers(out)
    results: dict[str, dict[str, Any]] = {}
    logs: dict[str, list[dict[str, Any]]] = {}
    with progress("losses") as bar:
        for split in splits:
            if asked_to_stop():
                return None
            place = Place(split, out / split, device, bar, asked_to_stop)
            found = fine_tune(task, config, ready.rows[split], place, ready.notes[split])
            if found is None:
                return None
            logs[split] = found.pop("log")
            results[split] = found
    result = {
        "task": name,
        "protocol": protocol(name, task, dataset, config),
        "checkpoint": {**pretrained.facts, "weights": config.weights},
        "data": data_facts(dataset, splits),
        "metrics": over_splits({split: found["test"] for split, found in results.items()}),
        "splits": results,
        "device": str(device),
    }
    write_json(out / "metrics.json", result)
    draw_curves(logs, task.selects, out / "curves.png")
    show(name, result, out)
    return result


@dataclass(frozen=True)
class Ready:
    """A task whose inputs were checked.

    Attributes:
        rows, notes: the rows of each split, and the notes on it.
    """

    task: Task
    device: torch.device
    rows: dict[str, Split]
    notes: dict[str, list[str]]


def make_ready(name: str, pretrained: Pretrained, dataset: LabelledDataset, config: FineTuneConfig) -> Ready:
    """Build the task called `name` and check its splits; nothing is written.

    Raises:
        UsageError: a split, a class or the dataset can't be used.
        RunError: a package that only this task needs is not installed.
    """
    splits = choose_splits(dataset, name, config.splits)
    rows = {split: dataset.split(split, config.percent) for split in splits}
    device = choose_device(config.device)
    if config.normalization == "dataset":
        pretrained = dataclasses.replace(pretrained, image_mean=dataset.image_mean, image_std=dataset.image_std)
    if not pretrained.image_std:
        source = (
            f"{dataset.root} are" if config.normalization == "dataset" else f"the training of {pretrained.path} were"
        )
        other = "pretraining" if config.normalization == "dataset" else "dataset"
        raise UsageError(
            f"normalization={config.normalization}: all images of {source} of one gray level (image_std is 0), "
            f"by which images can't be normalized; give normalization={other}"
        )
    task = make_task(name, pretrained, dataset, config, device, rows)
    return Ready(
        task, device, rows, {split: check_split(task, parts, split, config.percent) for split, parts in rows.items()}
    )


def check_split(task: Task, rows: Split, split: str, percent: int) -> list[str]:
    """Check a split, and return notes on it.

    Raises:
        UsageError: a part has no image, training has nothing to learn from, or validation can't choose weights.
    """
    for part, found in vars(rows).items():
        if not len(found):
            raise UsageError(
                f"the {part} part of {split} ({percent} %) has no image: take another percent or splits=..."
            )
    task.check_validation(rows.validate, f"the validation part of {split}")
    return task.check_training(rows.train, f"the training part of {split} ({percent} %)")


def make_task(
    name: str,
    pretrained: Pretrained,
    dataset: LabelledDataset,
    config: FineTuneConfig,
    device: Any,
    rows: dict[str, Split],
) -> Task:
    """The task called `name`.

    Raises:
        RunError: a package that only this task needs is not installed.
    """
    try:
        kind = importlib.import_module(f"prior_fast.downstream.tasks.{name}").TASK
    except ModuleNotFoundError as error:
        raise RunError(f"{name} needs the Python package {error.name}, which is not installed") from None
    parts = [part for split in rows.values() for part in vars(split).values()]
    return kind(
        dataset, pretrained, config, device, np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    )


def protocol(name: str, task: Task, dataset: LabelledDataset, config: FineTuneConfig) -> dict[str, Any]:
    """A description of what was measured and how, so that the numbers can be compared with others."""
    cell = find_preset(name, dataset.name, config.percent)
    given = (config.learning_rate, config.epochs, config.batch_size)
    asked = given == (cell.learning_rate, cell.epochs, cell.batch_size)
    return {
        **{key: value for key, value in to_dict(config).items() if key not in FREE},
        "learning_rate_epochs_batch_size": cell.source if asked else "settings of the command",
        "chosen_by": f"highest {task.selects} on the validation part, the first of equal ones",
        "image_mean": task.pretrained.image_mean,
        "image_std": task.pretrained.image_std,
        "std": "over the splits, of a sample (divided by their number - 1)",
        **task.facts(),
    }


def data_facts(dataset: LabelledDataset, splits: Sequence[str]) -> dict[str, Any]:
    """The dataset and the rules by which its splits were drawn."""
    return {
        "path": str(dataset.root),
        "name": dataset.name,
        "images": len(dataset),
        "splits": {split: dataset.info["splits"][split] for split in splits},
    }


def show(name: str, result: dict[str, Any], out: Path) -> None:
    """Print a short table of the result."""
    rows = []
    for metric, found in result["metrics"].items():
        if metric not in HIDDEN:
            mean, std = ("-" if value is None else f"{value:.4f}" for value in (found["mean"], found["std"]))
            rows.append((metric, mean, std, found["splits"]))
    facts = result["data"]
    title = f"{name}: {facts['name']}, {result['protocol']['percent']} % of the training images, test part"
    print_table(title, ("metric", "mean", "std", "splits"), rows)
    for split, found in result["splits"].items():
        # The reasons for means that leave something out. Those for undefined metrics are in metrics.json.
        partial = [f"{name}, {why}" for name, why in found["undefined"].items() if found["test"][name] is not None]
        for note in [*found["notes"], *partial]:
            stdout.print(f"note on {split}: {note}")
    stdout.print(f"metrics.json, curves.png and a folder for each split are in {out}")
