"""Ranking metrics over a whole set of candidates.

Metrics of candidates with equal scores are the expectation over all their orders, so that no metric depends on the
order of the candidates. Letters in shapes: Q queries, C candidates.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import hypergeom


class FirstHit(NamedTuple):
    """The place of each query's best relevant candidate: `above` candidates have a greater score, `tied` the same
    score, and `hits` of the tied ones are relevant. int64 [Q] each."""

    above: np.ndarray
    tied: np.ndarray
    hits: np.ndarray


def precision_at(k: int, scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Share of relevant candidates among the best k of each query: scores, relevant [Q, C] -> float64 [Q].

    Raises:
        ValueError: k is not in 1..C.
    """
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k is {k}, wanted 1 to {scores.shape[1]}, the number of candidates")
    threshold = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
    above, tied = scores > threshold, scores == threshold
    places = k - above.sum(axis=1)
    hits = (above & relevant).sum(axis=1) + places * (tied & relevant).sum(axis=1) / tied.sum(axis=1)
    return hits / k


def first_hit(scores: np.ndarray, relevant: np.ndarray) -> FirstHit:
    """The best relevant candidate of each query: scores [Q, C], relevant bool [Q, C], one or more in each row."""
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    tied = scores == best
    return FirstHit((scores > best).sum(axis=1), tied.sum(axis=1), (tied & relevant).sum(axis=1))


def ranks(hit: FirstHit) -> np.ndarray:
    """Rank of the first relevant candidate, from 1: float64 [Q]."""
    return hit.above + (hit.tied + 1) / (hit.hits + 1)


def recall_at(k: int, hit: FirstHit) -> np.ndarray:
    """Probability that one of the best k candidates is relevant: float64 [Q], 0 or 1 without ties."""
    places = np.clip(k - hit.above, 0, hit.tied)
    return 1 - hypergeom.pmf(0, hit.tied, hit.hits, places)


def chance_hit(relevant: np.ndarray) -> FirstHit:
    """`first_hit` of equal scores, whose metrics are those of a random order."""
    queries, candidates = relevant.shape
    return FirstHit(np.zeros(queries, np.int64), np.full(queries, candidates), relevant.sum(axis=1))
