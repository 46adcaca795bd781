"""`prior-fast bench ceiling`: what the image encoder of a preset reaches when it is trained with labels.

Letters in shapes: N images, M reports, C findings.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prior_fast.config import RunConfig, apply_overrides, preset, validate_config
from prior_fast.console import print_table, progress, stdout
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation.classification_metrics import classification_metrics
from prior_fast.evaluation.config import EvaluationConfig
from prior_fast.evaluation.evaluation_source import prepared_source
from prior_fast.evaluation.result import table_row
from prior_fast.evaluation.retrieval_metrics import DIRECTIONS, Truth, retrieval_metrics
from prior_fast.evaluation.scores import PairScores
from prior_fast.evaluation.selection import Chosen, choose
from prior_fast.files import write_json
from prior_fast.hardware.machine import describe_machine
from prior_fast.measure.demo import labelled_training
from prior_fast.measure.demo.labelled_training import (
    FINDINGS,
    LabelClassifier,
    Trained,
    findings_shown,
    train_with_labels,
)
from prior_fast.measure.demo.read import CEILING
from prior_fast.radiology.normalize import normalize
from prior_fast.training.distributed import choose_device

AT = "precision_at_5"


@dataclass(frozen=True)
class CeilingOptions:
    """Options of `prior-fast bench ceiling`.

    Attributes:
        data: a prepared dataset.
        out: the file for the result.
        preset: whose image encoder, loader settings and batch size are used, changed by the `settings` (key=value).
        like: a run of `prior-fast train`, whose time the training takes; None: `epochs` says how long.
    """

    data: Path
    out: Path
    preset: str = "tiny"
    like: Path | None = None
    epochs: int = 0
    settings: Sequence[str] = ()


def run_ceiling(options: CeilingOptions) -> dict[str, Any]:
    """Train with labels, evaluate on the test split as `prior-fast evaluate` does, write the result to a file.

    Returns:
        The content of the file.

    Raises:
        UsageError: an option, a setting, the run or the dataset can't be used.
    """
    config = apply_overrides(preset(options.preset), options.settings)
    validate_config(config)
    budget = _budget(options)
    device = choose_device(config.device)
    train = PreparedDataset.open(options.data, "train")
    selected = EvaluationConfig()
    chosen = choose(prepared_source(PreparedDataset.open(options.data, "test")), selected, selected.per_class)
    with progress() as bar:
        task = bar.add_task("training with labels", total=1.0)

        def advance(share: float) -> None:
            bar.update(task, completed=share)

        trained = train_with_labels(config, train, device, options.epochs, budget, advance=advance)
    logits = predict(trained.model, chosen, train, config.batch_size, device)
    metrics = measure(logits, chosen)
    report = {
        "kind": CEILING,
        "settings": _settings(options, config, trained, budget),
        "data": chosen.facts(),
        "metrics": metrics,
        "machine": describe_machine(),
    }
    write_json(options.out, report)
    rows = [("accuracy", metrics["accuracy"])]
    rows += [(f"AUROC, {name}", value) for name, value in metrics["auroc"].items()]
    rows += [(f"precision @ 5, {name.replace('_', ' ')}", value) for name, value in metrics[AT].items()]
    title = f"trained with labels: {trained.steps} steps in {trained.seconds:.0f} s"
    print_table(title, ("metric", "value", "chance"), [table_row(*row) for row in rows])
    stdout.print(f"the result is in {options.out}")
    return report


@torch.inference_mode()
def predict(
    model: LabelClassifier, chosen: Chosen, dataset: PreparedDataset, batch_size: int, device: torch.device
) -> np.ndarray:
    """The logits of the chosen images, normalized as in the training on `dataset`: float64 [N, C]."""
    parts = []
    for first in range(0, len(chosen), batch_size):
        pixels = torch.from_numpy(chosen.source.images[chosen.rows[first : first + batch_size]]).to(device)
        images = normalize(pixels[:, None].float() / 255, dataset.image_mean, dataset.image_std)
        parts.append(model(images).double().cpu())
    return torch.cat(parts).numpy()


def measure(logits: np.ndarray, chosen: Chosen) -> dict[str, Any]:
    """Accuracy and AUROC of the classes, and precision at 5 in both directions with an oracle for the text: [N, C].

    The oracle knows the labels of each report. An image and a report score the likelihood of the report's labels under
    the probabilities that the image's logits state.
    """
    classes = chosen.answers
    found = classification_metrics(chosen.truth, logits[:, [FINDINGS.index(name) for name in classes]], classes)
    labels = findings_shown(chosen.source.labels[chosen.selection.positions])
    pairs = log_likelihood(logits, labels)
    # Zero local scores with a weight of 0 leave the order of the candidates to the likelihood alone.
    ranked = retrieval_metrics(PairScores(pairs, np.zeros_like(pairs)), Truth(chosen.truth, chosen.truth), 0.0)
    return {
        "accuracy": found["accuracy"],
        "auroc": found["auroc"],
        AT: {direction: ranked[direction]["class_level"][AT] for direction in DIRECTIONS},
    }


def log_likelihood(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The log-likelihood of the labels, bool [M, C], under independent findings with logits [N, C]: [N, M]."""
    yes, no = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
    return yes @ labels.T.astype(float) + no @ (~labels).T.astype(float)


def _budget(options: CeilingOptions) -> float:
    """The seconds of the run that sets the time; 0 if the epochs are given."""
    if (options.like is None) == (options.epochs == 0):
        raise UsageError("give either --like RUN, whose training time is taken, or --epochs N")
    if options.like is None:
        if options.epochs < 1:
            raise UsageError(f"--epochs {options.epochs}: must be at least 1")
        return 0.0
    path = options.like / "metrics.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        finished, seconds = bool(report["finished"]), float(report["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--like {options.like}: {path} can't be read ({error!r}): give the folder of a finished "
            "`prior-fast train`, or --epochs N"
        ) from None
    if not finished:
        raise UsageError(f"--like {options.like}: the run is not finished: go on with it first, or give --epochs N")
    return seconds


def _settings(options: CeilingOptions, config: RunConfig, trained: Trained, budget: float) -> dict[str, Any]:
    return {
        "preset": options.preset,
        "changed": list(options.settings),
        "seed": config.seed,
        "findings": list(FINDINGS),
        "batch_size": config.batch_size,
        "optimizer": "adamw",
        "learning_rate": labelled_training.LEARNING_RATE,
        "weight_decay": labelled_training.WEIGHT_DECAY,
        "clip_norm": labelled_training.CLIP_NORM,
        "warm_up_steps": labelled_training.WARM_UP,
        "like": None if options.like is None else str(options.like),
        "seconds_of_the_run": budget or None,
        "steps": trained.steps,
        "epochs": round(trained.epochs, 2),
        "seconds": round(trained.seconds, 1),
    }
