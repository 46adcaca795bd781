"""Retrieval metrics against loops over queries."""

import numpy as np
import pytest

from prior_fast.evaluation.retrieval import retrieval_metrics, unique_texts
from prior_fast.evaluation.scores import PairScores


def total(pairs: PairScores, axis: int, weight: float) -> np.ndarray:
    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=True)

    return softmax(pairs.whole) + weight * softmax(pairs.local)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_metrics_equal_brute_force_over_the_whole_set(weight: float, rng: np.random.Generator) -> None:
    count = 30
    pairs = PairScores(rng.normal(size=(count, count)) * 5, rng.random((count, count)))
    truth, text = np.arange(count) // 6, np.arange(count)
    found = retrieval_metrics(pairs, truth, text, weight)
    for direction, scores in (
        ("image_to_text", total(pairs, 1, weight)),
        ("text_to_image", total(pairs, 0, weight).T),
    ):
        for k in (1, 5, 10):
            hits, recalls = [], []
            for query in range(count):
                best = sorted(range(count), key=lambda c: -scores[query, c])[:k]
                hits.append(np.mean([truth[c] == truth[query] for c in best]))
                recalls.append(query in best)
            level = found[direction]["class_level"][f"precision_at_{k}"]
            assert level["value"] == pytest.approx(np.mean(hits)) and level["chance"] == pytest.approx(6 / count)
            instance = found[direction]["instance_level"][f"recall_at_{k}"]
            assert instance["value"] == pytest.approx(np.mean(recalls)) and instance["chance"] == pytest.approx(
                k / count
            )
        places = [1 + sum(scores[q] > scores[q, q]) for q in range(count)]
        rank = found[direction]["instance_level"]["mean_rank"]
        assert rank["value"] == pytest.approx(np.mean(places)) and rank["chance"] == pytest.approx((count + 1) / 2)


def test_identical_texts_are_one() -> None:
    text = unique_texts([["a", "b"], ["a"], ["a", "b"], ["b", "a"]])
    assert text.tolist() == [0, 1, 0, 2]
    # Images 0 and 2 share text 0, and each prefers it; image 1 prefers it too, and its own comes second.
    whole = np.array([[9, 0, 9, 0], [9, 5, 9, 0], [9, 0, 9, 0], [0, 0, 0, 9]], float)
    found = retrieval_metrics(PairScores(whole, np.zeros((4, 4))), np.array([0, 0, 1, 1]), text, 1.0)
    assert found["different_texts"] == 3
    forward = found["image_to_text"]["instance_level"]
    assert forward["recall_at_1"]["value"] == 3 / 4 and forward["mean_rank"]["value"] == 5 / 4
    # Chance of an image to pick its text: 1/3. Of a text to pick one of its images: 2/4, 1/4, 1/4.
    assert forward["recall_at_1"]["chance"] == pytest.approx(1 / 3)
    assert found["text_to_image"]["instance_level"]["recall_at_1"]["chance"] == pytest.approx(1 / 3)


def test_a_cutoff_beyond_the_set_is_null_with_a_note() -> None:
    pairs = PairScores(np.eye(4), np.zeros((4, 4)))
    found = retrieval_metrics(pairs, np.array([0, 0, 1, 1]), np.arange(4), 1.0)
    for level, name in (("class_level", "precision_at_5"), ("instance_level", "recall_at_10")):
        value = found["image_to_text"][level][name]
        assert value["value"] is None and value["note"] == "only 4 candidates"


def test_equal_scores_are_at_chance() -> None:
    pairs = PairScores(np.ones((20, 20)), np.ones((20, 20)))
    found = retrieval_metrics(pairs, np.arange(20) // 4, np.arange(20), 1.0)
    for direction in ("image_to_text", "text_to_image"):
        for level in ("class_level", "instance_level"):
            for value in found[direction][level].values():
                assert value["value"] == pytest.approx(value["chance"])
