"""Metrics of multi-label classification."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import f1_score, roc_auc_score

from prior_fast.downstream.task import Measured

THRESHOLD = 0.5


def multilabel_metrics(truth: np.ndarray, logits: np.ndarray, classes: Sequence[str]) -> Measured:
    """AUROC of each class and its mean, accuracy and F1 at probability 0.5, and the loss.

    truth bool [N, C]; logits float [N, C]. A class without a positive or without a negative image has no AUROC. A class
    without a positive image has no F1. Such values are None with a note, and the means run over the other classes.

    Returns:
        "auroc" (the mean), "accuracy_at_0.5" (of images, mean over classes), "f1_at_0.5" (mean over classes), "loss"
        (binary cross-entropy, mean over images and classes), and "auroc/<class>", "f1_at_0.5/<class>".
    """
    logits = logits.astype(np.float64)
    predicted = logits >= 0  # the logit of 0.5
    values: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for index, name in enumerate(classes):
        column = truth[:, index]
        lacking = "" if column.any() and not column.all() else "negative" if column.all() else "positive"
        values[f"auroc/{name}"] = None if lacking else float(roc_auc_score(column, logits[:, index]))
        values[f"f1_at_0.5/{name}"] = float(f1_score(column, predicted[:, index], zero_division=0))
        if lacking:
            notes[f"auroc/{name}"] = f"no {lacking} image of {name}"
        if not column.any():
            values[f"f1_at_0.5/{name}"] = None
            notes[f"f1_at_0.5/{name}"] = f"no positive image of {name}"
    means: dict[str, float | None] = {}
    for metric in ("auroc", "f1_at_0.5"):
        defined = {name: values[f"{metric}/{name}"] for name in classes if values[f"{metric}/{name}"] is not None}
        means[metric] = float(np.mean(list(defined.values()))) if defined else None
        if len(defined) < len(classes):
            missing = ", ".join(name for name in classes if name not in defined)
            notes[metric] = f"over {len(defined)} of {len(classes)} classes: undefined for {missing}"
    return Measured(
        {
            "auroc": means["auroc"],
            "accuracy_at_0.5": float((predicted == truth).mean()),
            "f1_at_0.5": means["f1_at_0.5"],
            "loss": float((np.logaddexp(0, logits) - truth * logits).mean()),
            **values,
        },
        notes,
    )
