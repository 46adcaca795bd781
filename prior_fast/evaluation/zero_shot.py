"""Zero-shot classification by prompts: one of several classes (supplement 3.2), or the presence of one class."""

from functools import partial
from typing import Any

import numpy as np

from prior_fast.errors import UsageError
from prior_fast.evaluation.classification_metrics import auroc, classification_metrics, metric, one_class_metrics
from prior_fast.evaluation.config import TEMPLATE, EvaluationConfig
from prior_fast.evaluation.encode import Encoder, Track, no_track
from prior_fast.evaluation.prompts import Prompts, make_prompts
from prior_fast.evaluation.result import EvaluationResult, EvaluationSet, table_row
from prior_fast.evaluation.scores import PairScores, gloria_scores, score_images
from prior_fast.evaluation.selection import Chosen

SCALARS = (
    *("accuracy", "auroc", "macro_precision", "macro_recall", "macro_f1", "f1", "max_f1", "macro_max_f1"),
    "cohen_kappa",
)
PER_CLASS = ("auroc", "max_f1")


def zero_shot(
    encoder: Encoder, evaluation_set: EvaluationSet, config: EvaluationConfig, track: Track = no_track
) -> EvaluationResult:
    """Assign to each image the class, or the answer, whose prompts have the greatest score.

    Raises:
        UsageError: the prompts can't be used.
        RunError: an embedding or a score is not finite.
    """
    prompts, chosen = make_prompts(config), evaluation_set.images
    try:
        texts = encoder.texts([[text] for text in prompts.texts], track("prompts", len(prompts.texts)))
    except ValueError as error:
        setting = "prompt" if config.prompts == TEMPLATE else "prompts"
        raise UsageError(f"{setting}={getattr(config, setting)}: {error}") from None
    pairs = score_images(encoder, chosen.source.images, chosen.rows, texts, track)
    encoder.require_finite("scores", pairs.whole, pairs.local)
    return result(chosen, config, prompts, pairs)


def result(chosen: Chosen, config: EvaluationConfig, prompts: Prompts, pairs: PairScores) -> EvaluationResult:
    """The metrics, rows and pictures of the scores of images and prompts."""
    classes = pairs.pooled(prompts.owner, config.prompt_pooling)
    if config.score == "gloria":
        scores = gloria_scores(pairs, prompts.owner, config.prompt_pooling, config.local_weight)
    else:
        scores = classes.combined(axis=1, local_weight=config.local_weight)
    metrics = measured(chosen, config, classes, scores)
    rows = [(name, metrics[name]) for name in SCALARS if "value" in metrics.get(name, ())]
    rows += [(name, metrics[name]) for name in metrics if name.endswith("_only")]
    for name in PER_CLASS:
        if "value" not in metrics[name]:
            rows += [(f"{name} {key}", value) for key, value in metrics[name].items()]
    answers, truth = chosen.answers, chosen.truth
    return EvaluationResult(
        metrics=metrics,
        table=[table_row(name, value) for name, value in rows],
        header=(chosen.source.id_column, "class", "predicted", *(f"score {name}" for name in answers)),
        predictions=[
            (name, answers[true], answers[row.argmax()], *row.tolist())
            for name, true, row in zip(chosen.ids, truth, scores)
        ],
        facts={"prompts": prompts.by_answer(answers)},
        pictures=_pictures(chosen, config, metrics, scores),
    )


def measured(chosen: Chosen, config: EvaluationConfig, parts: PairScores, scores: np.ndarray) -> dict[str, Any]:
    """The metrics of scores [N, answers], and of the global and the local score alone (`parts`), if there is one."""
    truth, alone = chosen.truth, [("global_only", parts.whole)]
    if parts.local.any():
        alone.append(("local_only", parts.local))
    if config.one_class:
        metrics = one_class_metrics(truth, scores, chosen.answers)
    else:
        metrics = classification_metrics(truth, scores, chosen.answers)
    for name, part in alone:
        right = float((part.argmax(axis=1) == truth).mean())
        metrics[f"accuracy_{name}"] = metric(right, metrics["accuracy"]["chance"])
        if config.one_class:
            metrics[f"auroc_{name}"] = auroc(truth == 0, part[:, 0] - part[:, 1])
    return metrics


def _pictures(chosen: Chosen, config: EvaluationConfig, metrics: dict[str, Any], scores: np.ndarray) -> dict[str, Any]:
    if not config.pictures:
        return {}
    # matplotlib takes a second to load.
    from prior_fast.plotting.confusion import draw_confusion
    from prior_fast.plotting.roc import draw_roc

    if config.one_class:
        true, shown, names = chosen.truth[:, None] == 0, scores[:, :1] - scores[:, 1:], chosen.answers[:1]
    else:
        true, shown, names = chosen.truth[:, None] == np.arange(len(chosen.answers)), scores, chosen.answers
    matrix = np.array(metrics["confusion_matrix"]["counts"])
    return {
        "roc.png": partial(draw_roc, true, shown, names),
        "confusion.png": partial(draw_confusion, matrix, chosen.answers),
    }
