"""Metrics of single-label classification, each beside its chance level."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score, confusion_matrix, precision_recall_fscore_support, roc_auc_score

Metric = dict[str, Any]


def metric(value: float | None, chance: float | None, note: str | None = None) -> Metric:
    """A value (None where it can't be computed, and `note` says why) and what a random answer would get."""
    return {"value": value, "chance": chance, **({"note": note} if note else {})}


def classification_metrics(truth: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro precision, recall and F1, Cohen's kappa, AUROC of each class against the rest, confusion matrix.

    truth int64 [N], scores [N, C]; the greatest score is the prediction, the first of equal ones. Macro means run over
    the classes that have a study; a class without one is noted and gets no AUROC.
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
        "auroc": {name: _auroc(truth == index, scores[:, index]) for index, name in enumerate(names.tolist())},
        "confusion_matrix": {
            "rows": "true class",
            "columns": "predicted class",
            "classes": list(classes),
            "counts": confusion_matrix(truth, predicted, labels=range(len(classes))).tolist(),
        },
    }


def _kappa(truth: np.ndarray, predicted: np.ndarray) -> Metric:
    if len(np.union1d(truth, predicted)) < 2:
        return metric(None, 0.0, "all studies are of one class and predicted as it: agreement by chance is certain")
    return metric(float(cohen_kappa_score(truth, predicted)), 0.0)


def _auroc(positive: np.ndarray, scores: np.ndarray) -> Metric:
    if positive.all() or not positive.any():
        return metric(None, 0.5, f"no {'negative' if positive.all() else 'positive'} study")
    return metric(float(roc_auc_score(positive, scores)), 0.5)
