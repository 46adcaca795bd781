"""Metrics of one class (present or absent) and the greatest F1 against their definitions."""

import json

import numpy as np
import pytest

from prior_fast.evaluation.classification_metrics import classification_metrics, max_f1, one_class_metrics

ANSWERS = ("Pneumonia", "no Pneumonia")


def f1_of(positive: np.ndarray, predicted: np.ndarray) -> float:
    hits = (positive & predicted).sum()
    return 2 * hits / (positive.sum() + predicted.sum()) if hits else 0.0


def best_f1(positive: np.ndarray, scores: np.ndarray) -> float:
    """The greatest F1 over thresholds between all neighbouring scores and below all scores."""
    return max(f1_of(positive, scores >= threshold) for threshold in np.unique(scores))


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_max_f1_is_that_of_the_best_threshold(levels: int, rng: np.random.Generator) -> None:
    for _ in range(20):
        positive, scores = rng.random(30) < 0.3, rng.integers(0, levels, 30) / levels
        positive[0] = True
        found = max_f1(positive, scores)
        assert found["value"] == pytest.approx(best_f1(positive, scores), abs=1e-12)
        # Chance: everything is predicted positive.
        assert found["chance"] == pytest.approx(f1_of(positive, np.ones(30, bool)))
        assert found["value"] >= found["chance"] - 1e-12


@pytest.mark.parametrize("levels", [3, 1000])
def test_metrics_equal_their_definitions(levels: int, rng: np.random.Generator) -> None:
    truth = (rng.random(80) > 0.25).astype(np.int64)
    scores = rng.integers(0, levels, (80, 2)) / levels + 0.2 * np.eye(2)[truth]
    found = one_class_metrics(truth, scores, ANSWERS)
    present, said = truth == 0, scores[:, 0] >= scores[:, 1]
    share, difference = present.mean(), scores[:, 0] - scores[:, 1]
    larger = max(share, 1 - share)
    assert found["positive_share"] == pytest.approx(share)
    assert found["accuracy"] == {"value": pytest.approx((present == said).mean()), "chance": pytest.approx(larger)}
    assert found["f1"]["value"] == pytest.approx(f1_of(present, said))
    macro = (f1_of(present, said) + f1_of(~present, ~said)) / 2
    assert found["macro_f1"]["value"] == pytest.approx(macro)
    majority = np.full(80, share > 0.5)
    by_majority = (f1_of(present, majority) + f1_of(~present, ~majority)) / 2
    assert found["macro_f1"]["chance"] == pytest.approx(by_majority)
    assert found["max_f1"]["value"] == pytest.approx(best_f1(present, difference))
    pairs = difference[present][:, None] - difference[~present][None, :]
    assert found["auroc"]["value"] == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
    counts = [[(present & said).sum(), (present & ~said).sum()], [(~present & said).sum(), (~present & ~said).sum()]]
    assert found["confusion_matrix"]["counts"] == np.array(counts).tolist()


@pytest.mark.parametrize("answer", [0, 1])
def test_images_of_one_kind_leave_metrics_undefined(answer: int) -> None:
    scores = np.tile([[0.2, 0.8]], (4, 1))
    found = one_class_metrics(np.full(4, answer), scores, ANSWERS)
    assert found["auroc"]["value"] is None and found["macro_f1"]["value"] is None
    assert ANSWERS[answer] in found["macro_f1"]["note"]
    assert (found["max_f1"]["value"], found["f1"]["value"]) == ((1.0, 0.0) if answer == 0 else (None, None))
    assert found["accuracy"]["value"] == answer
    json.dumps(found, allow_nan=False)


def test_max_f1_of_each_class_and_their_mean(rng: np.random.Generator) -> None:
    truth, scores = np.repeat([0, 1, 3], 8), rng.random((24, 4))
    found = classification_metrics(truth, scores, "ABCD")
    each = [best_f1(truth == index, scores[:, index]) for index in (0, 1, 3)]
    assert [found["max_f1"][name]["value"] for name in "ABD"] == pytest.approx(each)
    assert found["max_f1"]["C"] == {"value": None, "chance": None, "note": "no positive study"}
    assert found["macro_max_f1"]["value"] == pytest.approx(np.mean(each))
    assert "3 classes" in found["macro_max_f1"]["note"]
