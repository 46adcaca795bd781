"""Zero-shot classification of the studies with exactly one of the classes (supplement 3.2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from prior_fast.data.store import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation.classification_metrics import classification_metrics, metric
from prior_fast.evaluation.config import EvaluationConfig
from prior_fast.evaluation.encode import EncodedImages, Encoder, Track, no_track
from prior_fast.evaluation.scores import PairScores, pair_scores
from prior_fast.evaluation.selection import Selection


@dataclass(frozen=True)
class Outcome:
    """What an evaluation found.

    Attributes:
        metrics: for metrics.json.
        table: rows of name, value, chance for people.
        header, predictions: a row per study for predictions.csv.
    """

    metrics: dict[str, Any]
    table: list[tuple[str, str, str]]
    header: tuple[str, ...]
    predictions: list[tuple[Any, ...]]


def zero_shot(
    encoder: Encoder,
    dataset: PreparedDataset,
    selection: Selection,
    images: EncodedImages,
    config: EvaluationConfig,
    track: Track = no_track,
) -> Outcome:
    """Classify each study's first image by the class whose prompt scores best.

    images: those of the selection.
    """
    try:
        prompts = encoder.texts([[prompt] for prompt in config.prompts()], track("prompts", len(config.classes)))
    except ValueError as error:
        raise UsageError(f"prompt={config.prompt}: {error}") from None
    pairs = pair_scores(encoder.model, images, prompts, advance=track("scores", len(selection.studies)))
    scores = pairs.combined(axis=1, local_weight=config.local_weight)
    return outcome(dataset, selection, config, pairs, scores)


def outcome(
    dataset: PreparedDataset, selection: Selection, config: EvaluationConfig, pairs: PairScores, scores: np.ndarray
) -> Outcome:
    """Metrics and rows of a selection's scores [N, C]."""
    truth, classes = selection.truth, config.classes
    metrics = classification_metrics(truth, scores, classes)
    for name, part in (("global_only", pairs.whole), ("local_only", pairs.local)):
        metrics[f"accuracy_{name}"] = metric(float((part.argmax(axis=1) == truth).mean()), 1 / len(classes))
    names = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "cohen_kappa")
    rows = [(name, metrics[name]) for name in (*names, "accuracy_global_only", "accuracy_local_only")]
    rows += [(f"auroc {name}", value) for name, value in metrics["auroc"].items()]
    return Outcome(
        metrics=metrics,
        table=[table_row(name, value) for name, value in rows],
        header=("study_id", "class", "predicted", *(f"score {name}" for name in classes)),
        predictions=[
            (int(dataset.study_ids[study]), classes[true], classes[row.argmax()], *row.tolist())
            for study, true, row in zip(selection.studies, truth, scores)
        ],
    )


def table_row(name: str, value: dict[str, Any]) -> tuple[str, str, str]:
    """A metric for people: its name, its value (or why it has none), its chance level."""
    number = f"{value['value']:.3f}" if value["value"] is not None else f"none: {value['note']}"
    return name, number, f"{value['chance']:.3f}" if value["chance"] is not None else ""
