"""Retrieval metrics against loops over queries."""

import numpy as np
import pytest

from prior_fast.evaluation.retrieval import unique_texts
from prior_fast.evaluation.retrieval_metrics import Truth, retrieval_metrics
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
    found = retrieval_metrics(pairs, Truth(truth, truth, text), weight)
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
    # Images 0 and 2 share text 0, and both rank it first; image 1 also ranks it first and its own text second.
    whole = np.array([[9, 0, 9, 0], [9, 5, 9, 0], [9, 0, 9, 0], [0, 0, 0, 9]], float)
    truth = np.array([0, 0, 1, 1])
    found = retrieval_metrics(PairScores(whole, np.zeros((4, 4))), Truth(truth, truth, text), 1.0)
    assert found["different_texts"] == 3
    forward = found["image_to_text"]["instance_level"]
    assert forward["recall_at_1"]["value"] == 3 / 4 and forward["mean_rank"]["value"] == 5 / 4
    # Probability that an image picks its text by chance: 1/3; that a text picks one of its images: 2/4, 1/4, 1/4.
    assert forward["recall_at_1"]["chance"] == pytest.approx(1 / 3)
    assert found["text_to_image"]["instance_level"]["recall_at_1"]["chance"] == pytest.approx(1 / 3)


def test_a_cutoff_beyond_the_set_is_null_with_a_note() -> None:
    pairs = PairScores(np.eye(4), np.zeros((4, 4)))
    truth = np.array([0, 0, 1, 1])
    found = retrieval_metrics(pairs, Truth(truth, truth, np.arange(4)), 1.0)
    for level, name in (("class_level", "precision_at_5"), ("instance_level", "recall_at_10")):
        value = found["image_to_text"][level][name]
        assert value["value"] is None and value["note"] == "only 4 candidates"


def test_equal_scores_are_at_chance() -> None:
    pairs = PairScores(np.ones((20, 20)), np.ones((20, 20)))
    truth = np.arange(20) // 4
    found = retrieval_metrics(pairs, Truth(truth, truth, np.arange(20)), 1.0)
    for direction in ("image_to_text", "text_to_image"):
        for level in ("class_level", "instance_level"):
            for value in found[direction][level].values():
                assert value["value"] == pytest.approx(value["chance"])


def ranked(scores: np.ndarray) -> list[list[int]]:
    return [sorted(range(scores.shape[1]), key=lambda c, row=row: -row[c]) for row in scores]


@pytest.mark.parametrize("images, reports, within", [(24, 40, 0), (30, 30, 8), (30, 30, 15)])
def test_class_level_equals_loops_over_queries(
    images: int, reports: int, within: int, rng: np.random.Generator
) -> None:
    pairs = PairScores(rng.normal(size=(images, reports)) * 5, rng.random((images, reports)))
    classes = rng.integers(0, 3, images), rng.integers(0, 3, reports)
    found = retrieval_metrics(pairs, Truth(*classes), 0.5, within)
    assert found["images"] == images and found["reports"] == reports
    size, suffix = within or max(images, reports), f"_within_{within}" if within else ""
    for direction, axis in (("image_to_text", 1), ("text_to_image", 0)):
        assert "instance_level" not in found[direction] and "not of the same" in found[direction]["instance_level_note"]
        level = found[direction]["class_level"]
        for k in (1, 2, 5, 10):
            precision, hit = [], []
            for first in range(0, images, size):
                part = np.s_[first : first + size], np.s_[first : first + size] if within else np.s_[:]
                block = PairScores(pairs.whole[part], pairs.local[part])
                queries, candidates = classes[0][part[0]], classes[1][part[1]]
                scores = total(block, axis, 0.5)
                if axis == 0:
                    scores, queries, candidates = scores.T, candidates, queries
                if k > len(candidates):
                    continue
                right = [
                    [candidates[c] == queries[q] for c in order[:k]]
                    for q, order in enumerate(ranked(scores))
                    if queries[q] in candidates
                ]
                precision.append(np.mean(right))
                hit.append(np.mean([any(row) for row in right]))
            if not precision:
                assert level[f"precision_at_{k}{suffix}"]["value"] is None
                continue
            # Each batch with k candidates has equal weight.
            assert level[f"precision_at_{k}{suffix}"]["value"] == pytest.approx(np.mean(precision))
            assert level[f"hit_at_{k}{suffix}"]["value"] == pytest.approx(np.mean(hit))


def test_batches_of_ties_are_at_chance_and_of_studies_are_instances(rng: np.random.Generator) -> None:
    truth = Truth(np.arange(20) % 4, np.arange(20) % 4, np.arange(20) % 18)
    found = retrieval_metrics(PairScores(np.ones((20, 20)), np.ones((20, 20))), truth, 1.0, within=6)
    for direction in ("image_to_text", "text_to_image"):
        for level in ("class_level", "instance_level"):
            for name, value in found[direction][level].items():
                assert name.endswith("_within_6")
                if value["value"] is not None:
                    assert value["value"] == pytest.approx(value["chance"])
        assert "without 1 of 4 batches" in found[direction]["class_level"]["hit_at_5_within_6"]["note"]
    strong = PairScores(np.eye(20) * 9, np.zeros((20, 20)))
    found = retrieval_metrics(strong, Truth(truth.images, truth.reports, np.arange(20)), 1.0, within=6)
    assert found["image_to_text"]["instance_level"]["recall_at_1_within_6"]["value"] == 1.0
    assert found["image_to_text"]["instance_level"]["median_rank_within_6"]["value"] == 1.0


def test_a_class_without_candidates_is_left_out_with_a_note() -> None:
    scores = PairScores(np.array([[3.0, 1.0], [1.0, 3.0], [0.0, 1.0]]), np.zeros((3, 2)))
    found = retrieval_metrics(scores, Truth(np.array([0, 1, 2]), np.array([0, 1])), 1.0)
    forward = found["image_to_text"]["class_level"]["precision_at_1"]
    assert forward["value"] == 1.0 and "without 1 queries" in forward["note"]
    assert "note" not in found["text_to_image"]["class_level"]["precision_at_1"]
    none = retrieval_metrics(scores, Truth(np.array([2, 2, 2]), np.array([0, 1])), 1.0)
    assert none["image_to_text"]["class_level"]["hit_at_1"]["value"] is None
    with pytest.raises(ValueError, match="3 images and 2 reports"):
        retrieval_metrics(scores, Truth(np.array([0, 1, 2]), np.array([0, 1])), 1.0, within=2)


def test_more_cutoffs_where_there_are_candidates(rng: np.random.Generator) -> None:
    for count, there in ((60, False), (100, True)):
        truth = np.arange(count) % 5
        found = retrieval_metrics(
            PairScores(rng.random((count, count)), np.zeros((count, count))), Truth(truth, truth), 1
        )
        level = found["image_to_text"]["class_level"]
        assert ("precision_at_100" in level) == there and "precision_at_2" in level
        if there:
            assert level["precision_at_100"]["value"] == pytest.approx(0.2)
