"""Precision, recall and F1 of predicted sets of findings, beside those of another image's prediction.

Letters in shapes: N images, C findings.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from prior_fast.evaluation.classification_metrics import metric
from prior_fast.evaluation.purity import mean_of

SHUFFLES = 20  # random pairings of images and predictions whose mean is the chance level
NAMES = ("precision", "recall", "f1")


def set_metrics(truth: np.ndarray, predicted: np.ndarray, findings: Sequence[str], seed: int) -> dict[str, Any]:
    """Compare predicted with true sets, both bool [N, C]: each finding, all of them together, and the mean of their F1.

    Chance is the mean over random pairings of the images with the predictions for other images.
    """
    paired = [predicted[order] for order in pairings(len(predicted), seed)]
    each = {
        name: {
            "images": int(truth[:, column].sum()),
            "predicted": int(predicted[:, column].sum()),
            **_with_chance(truth[:, [column]], predicted[:, [column]], [other[:, [column]] for other in paired]),
        }
        for column, name in enumerate(findings)
    }
    f1s, by_chance = ([value["f1"][key] for value in each.values()] for key in ("value", "chance"))
    return {
        "images": len(truth),
        "overall": {
            "images": int(truth.any(axis=1).sum()),
            "predicted": int(predicted.any(axis=1).sum()),
            **_with_chance(truth, predicted, paired),
        },
        "macro_f1": metric(mean_of(f1s), mean_of(by_chance)),
        "findings": each,
    }


def precision_recall_f1(truth: np.ndarray, predicted: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Over all elements of both, bool of one shape.

    Precision is None if nothing is predicted, recall if nothing is true, F1 if neither anything is predicted nor true.
    """
    hits, said, there = int((truth & predicted).sum()), int(predicted.sum()), int(truth.sum())
    return (
        hits / said if said else None,
        hits / there if there else None,
        2 * hits / (said + there) if said + there else None,
    )


def pairings(count: int, seed: int) -> list[np.ndarray]:
    """Random orders int64 [count] in which no element keeps its place; none if there is one element."""
    rng = np.random.default_rng([seed, count])
    if count < 2:
        return []
    orders = []
    for _ in range(SHUFFLES):
        # One step along a random circle through all elements.
        circle = rng.permutation(count)
        order = np.empty(count, np.int64)
        order[circle] = np.roll(circle, 1)
        orders.append(order)
    return orders


def _with_chance(truth: np.ndarray, predicted: np.ndarray, paired: Sequence[np.ndarray]) -> dict[str, Any]:
    own, others = precision_recall_f1(truth, predicted), [precision_recall_f1(truth, other) for other in paired]
    notes = ("nothing is predicted", "no report states it", "no report states it and nothing is predicted")
    return {
        name: metric(value, mean_of([other[index] for other in others]), notes[index] if value is None else None)
        for index, (name, value) in enumerate(zip(NAMES, own))
    }
