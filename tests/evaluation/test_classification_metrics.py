"""Classification metrics against their definitions, in float64."""

import json

import numpy as np
import pytest

from prior_fast.evaluation.classification_metrics import classification_metrics

CLASSES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema")


def auroc_by_pairs(positive: np.ndarray, scores: np.ndarray) -> float:
    """Share of positive-negative pairs in the right order, ties a half."""
    difference = scores[positive][:, None] - scores[~positive][None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


@pytest.mark.parametrize("levels", [3, 1000])
def test_metrics_equal_their_definitions(levels: int, rng: np.random.Generator) -> None:
    truth = rng.permutation(np.repeat(np.arange(4), 25))
    scores = rng.integers(0, levels, (100, 4)) / levels + 0.3 * np.eye(4)[truth]
    found = classification_metrics(truth, scores, CLASSES)
    predicted = np.array([int(np.argmax(row)) for row in scores])
    counts = np.zeros((4, 4), int)
    for row, column in zip(truth, predicted):
        counts[row, column] += 1
    precision = np.array([counts[c, c] / max(counts[:, c].sum(), 1) for c in range(4)])
    recall = np.array([counts[c, c] / counts[c].sum() for c in range(4)])
    agreement = np.trace(counts) / 100
    expected = counts.sum(axis=0) @ counts.sum(axis=1) / 100**2
    assert found["confusion_matrix"]["counts"] == counts.tolist()
    assert found["accuracy"] == {"value": pytest.approx(agreement), "chance": 0.25}
    assert found["macro_precision"]["value"] == pytest.approx(precision.mean())
    assert found["macro_recall"]["value"] == pytest.approx(recall.mean())
    assert found["macro_f1"]["value"] == pytest.approx((2 * precision * recall / (precision + recall)).mean())
    assert found["cohen_kappa"]["value"] == pytest.approx((agreement - expected) / (1 - expected))
    for index, name in enumerate(CLASSES):
        assert found["auroc"][name]["value"] == pytest.approx(auroc_by_pairs(truth == index, scores[:, index]))


def test_a_class_without_studies_is_null_with_a_note(rng: np.random.Generator) -> None:
    truth = np.repeat([0, 1, 3], 10)
    found = classification_metrics(truth, rng.random((30, 4)), CLASSES)
    assert found["auroc"]["Consolidation"] == {"value": None, "chance": 0.5, "note": "no positive study"}
    assert "no study of Consolidation" in found["macro_f1"]["note"]
    assert found["auroc"]["Edema"]["value"] is not None
    json.dumps(found, allow_nan=False)


def test_macro_means_leave_out_a_class_that_is_only_predicted() -> None:
    found = classification_metrics(np.array([0, 1]), np.eye(4)[[0, 2]], CLASSES)
    assert found["macro_recall"]["value"] == 0.5


def test_one_class_alone_has_no_kappa_and_no_auroc() -> None:
    found = classification_metrics(np.zeros(5, int), np.eye(4)[np.zeros(5, int)], CLASSES)
    assert found["cohen_kappa"]["value"] is None and "note" in found["cohen_kappa"]
    assert found["auroc"]["Atelectasis"] == {"value": None, "chance": 0.5, "note": "no negative study"}
    json.dumps(found, allow_nan=False)


def test_equal_scores_are_at_chance() -> None:
    truth = np.repeat(np.arange(4), 5)
    found = classification_metrics(truth, np.ones((20, 4)), CLASSES)
    assert found["accuracy"]["value"] == 0.25
    assert found["cohen_kappa"]["value"] == 0.0
    assert {value["value"] for value in found["auroc"].values()} == {0.5}
