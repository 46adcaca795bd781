"""Ranking metrics against brute force over every order of tied candidates."""

from itertools import pairwise, permutations

import numpy as np
import pytest

from prior_fast.evaluation.ranking import chance_hit, first_hit, precision_at, ranks, recall_at


def orders(scores: np.ndarray) -> list[tuple[int, ...]]:
    """Every order of the candidates in which no score comes before a greater one."""
    return [
        order for order in permutations(range(len(scores))) if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]


@pytest.mark.parametrize("levels", [1, 2, 3, 100])
def test_ties_count_as_the_mean_over_their_orders(levels: int, rng: np.random.Generator) -> None:
    scores = rng.integers(0, levels, (12, 6)) / 7
    relevant = rng.random((12, 6)) < 0.4
    relevant[:, 0] |= ~relevant.any(axis=1)
    hit = first_hit(scores, relevant)
    precision = {k: precision_at(k, scores, relevant) for k in range(1, 7)}
    recall = {k: recall_at(k, hit) for k in range(1, 7)}
    for query in range(12):
        ordered = np.array([relevant[query][list(order)] for order in orders(scores[query])])
        assert ranks(hit)[query] == pytest.approx(np.mean(ordered.argmax(axis=1) + 1))
        for k in range(1, 7):
            assert precision[k][query] == pytest.approx(ordered[:, :k].mean())
            assert recall[k][query] == pytest.approx(ordered[:, :k].any(axis=1).mean())


def test_without_ties_recall_is_whole(rng: np.random.Generator) -> None:
    scores, relevant = rng.random((20, 30)), np.eye(20, 30, dtype=bool)
    hit = first_hit(scores, relevant)
    place = 1 + (scores > scores[relevant][:, None]).sum(axis=1)
    np.testing.assert_array_equal(ranks(hit), place)
    np.testing.assert_array_equal(recall_at(5, hit), place <= 5)


def test_the_order_of_the_candidates_does_not_matter(rng: np.random.Generator) -> None:
    scores, relevant = rng.integers(0, 4, (8, 40)) / 3, rng.random((8, 40)) < 0.2
    relevant[:, 0] = True
    shuffle = rng.permutation(40)
    np.testing.assert_allclose(
        precision_at(10, scores, relevant), precision_at(10, scores[:, shuffle], relevant[:, shuffle])
    )
    np.testing.assert_allclose(
        ranks(first_hit(scores, relevant)), ranks(first_hit(scores[:, shuffle], relevant[:, shuffle]))
    )


def test_chance_is_the_mean_of_random_rankings(rng: np.random.Generator) -> None:
    relevant = np.zeros((1, 12), bool)
    relevant[0, :3] = True
    random = np.array([relevant[0][rng.permutation(12)] for _ in range(20000)])
    chance = chance_hit(relevant)
    assert recall_at(5, chance)[0] == pytest.approx(random[:, :5].any(axis=1).mean(), abs=0.02)
    assert ranks(chance)[0] == pytest.approx((random.argmax(axis=1) + 1).mean(), abs=0.1)


@pytest.mark.parametrize("k", [0, 5])
def test_k_must_fit_the_candidates(k: int) -> None:
    with pytest.raises(ValueError, match="wanted 1 to 4"):
        precision_at(k, np.zeros((2, 4)), np.ones((2, 4), bool))
