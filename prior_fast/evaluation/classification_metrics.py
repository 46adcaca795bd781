"""Metrics of single-label classification, and of the presence of one class, each with its chance level."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import (
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
)

Metric = dict[str, Any]


def metric(value: float | None, chance: float | None, note: str | None = None) -> Metric:
    """A metric's value and its chance level. A value that can't be computed is None; `note` says why."""
    return {"value": value, "chance": chance, **({"note": note} if note else {})}


def classification_metrics(truth: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro precision, recall and F1, Cohen's kappa and the confusion matrix; for each class against the rest
    AUROC and the greatest F1 over all thresholds (BenchX's convention); and the mean of the greatest F1.

    truth int64 [N], scores [N, C]. The prediction is the class with the greatest score, the first if scores are equal.
    Macro means run over the classes that have a study. A class without a study is noted and has neither AUROC nor F1.
    """
    names = np.array(classes)
    predicted = scores.argmax(axis=1)
    present = np.unique(truth)
    missing = [name for index, name in enumerate(classes) if index not in present]
    note = f"over {len(present)} classes: no study of {', '.join(missing)}" if missing else None
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, predicted, labels=present, average="macro", zero_division=0
    )
    chance = 1 / len(classes)
    return {
        "accuracy": metric(float((predicted == truth).mean()), chance),
        "macro_precision": metric(float(precision), chance, note),
        "macro_recall": metric(float(recall), chance, note),
        "macro_f1": metric(float(f1), chance, note),
        "cohen_kappa": _kappa(truth, predicted),
        "auroc": {name: auroc(truth == index, scores[:, index]) for index, name in enumerate(names.tolist())},
        **_max_f1s(truth, scores, classes),
        "confusion_matrix": confusion(truth, predicted, classes),
    }


def one_class_metrics(truth: np.ndarray, scores: np.ndarray, answers: Sequence[str]) -> dict[str, Any]:
    """Accuracy and F1 at the greater score, the greatest F1 over all thresholds, AUROC, confusion matrix.

    Chance follows the class balance. For accuracy and macro F1 it is the value of always giving the more frequent
    answer, for F1 that of always answering yes.

    truth int64 [N], 0 if the class is present, else 1; scores [N, 2] of both answers, to whose difference thresholds
    are applied; answers: their names.
    """
    present, predicted = truth == 0, scores.argmax(axis=1)
    share = float(present.mean())
    larger = max(share, 1 - share)
    note = None if 0 < share < 1 else f"all images are {answers[int(share == 0)]!r}"
    macro = None if note else float(f1_score(truth, predicted, average="macro", labels=[0, 1], zero_division=0))
    f1 = float(f1_score(present, predicted == 0, zero_division=0)) if share else None
    difference = scores[:, 0] - scores[:, 1]
    return {
        "accuracy": metric(float((predicted == truth).mean()), larger),
        "auroc": auroc(present, difference),
        "macro_f1": metric(macro, larger / (1 + larger), note),
        "f1": metric(f1, always_yes(share), None if share else "no positive image"),
        "max_f1": max_f1(present, difference),
        "positive_share": share,
        "confusion_matrix": confusion(truth, predicted, answers),
    }


def max_f1(positive: np.ndarray, scores: np.ndarray) -> Metric:
    """The greatest F1 over all thresholds, with the F1 of calling everything positive as its chance level.

    positive bool [N], scores [N]. The threshold is chosen on the evaluated images, so the value is an upper bound, not
    what a user of the model would get.
    """
    share = float(positive.mean())
    if not share:
        return metric(None, None, "no positive study")
    precision, recall, _ = precision_recall_curve(positive, scores)
    # Where precision and recall are both 0 their F1 is 0.
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return metric(float(f1.max()), always_yes(share))


def always_yes(share: float) -> float:
    """F1 of calling everything positive if the share of positives is `share`."""
    return 2 * share / (1 + share)


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """The confusion matrix of class numbers int64 [N], with the meaning of its rows and columns."""
    return {
        "rows": "true class",
        "columns": "predicted class",
        "classes": list(classes),
        "counts": confusion_matrix(truth, predicted, labels=range(len(classes))).tolist(),
    }


def auroc(positive: np.ndarray, scores: np.ndarray) -> Metric:
    """AUROC of scores [N] for bool [N]; None if all are positive or all are negative."""
    if positive.all() or not positive.any():
        return metric(None, 0.5, f"no {'negative' if positive.all() else 'positive'} study")
    return metric(float(roc_auc_score(positive, scores)), 0.5)


def _max_f1s(truth: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    each = {name: max_f1(truth == index, scores[:, index]) for index, name in enumerate(classes)}
    there = [value for value in each.values() if value["value"] is not None]
    note = None if len(there) == len(each) else f"over the {len(there)} classes that have a study"
    mean, chance = (float(np.mean([value[key] for value in there])) for key in ("value", "chance"))
    return {"max_f1": each, "macro_max_f1": metric(mean, chance, note)}


def _kappa(truth: np.ndarray, predicted: np.ndarray) -> Metric:
    if len(np.union1d(truth, predicted)) < 2:
        return metric(None, 0.0, "all studies are of one class and predicted as it: agreement by chance is certain")
    return metric(float(cohen_kappa_score(truth, predicted)), 0.0)
