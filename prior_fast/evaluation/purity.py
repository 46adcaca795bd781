"""How well groups (prototypes, clusters) agree with labels: purity and normalized mutual information.

Letters in shapes: S sentences.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

SHUFFLES = 10  # random assignments whose mean is the chance level


def numbers_of(values: Sequence[Hashable]) -> np.ndarray:
    """Number equal values equally, from 0 in the order of their first appearance: int64 [S]."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)


def purity(labels: np.ndarray, groups: np.ndarray) -> float:
    """The share of the sentences that have the most frequent label of their group: labels, groups int64 [S]."""
    return float(contingency_matrix(labels, groups).max(axis=0).sum() / len(labels))


def shared_information(labels: np.ndarray, groups: np.ndarray) -> float | None:
    """Twice the mutual information divided by the sum of both entropies, 0 to 1; labels, groups int64 [S].

    None if there is one label only: its entropy is 0, and no group can tell anything about it.
    """
    if len(np.unique(labels)) < 2:
        return None
    return float(normalized_mutual_info_score(labels, groups))


def shuffled(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """The labels in `SHUFFLES` random orders. Against them a group's purity is that of a random group of its size."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(labels) for _ in range(SHUFFLES)]


def effective_groups(groups: np.ndarray) -> float:
    """exp of the entropy of the groups' sizes: the number of groups of equal size that would be as diverse."""
    shares = np.unique(groups, return_counts=True)[1] / len(groups)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are there; None if there is none."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
