"""Does a prototype stand for one thing? The purity of the bank's prototypes, beside k-means and beside chance."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from prior_fast.evaluation.purity import effective_groups, mean_of, numbers_of, purity, shared_information, shuffled
from prior_fast.evaluation.read_sentences import ReadSentences
from prior_fast.evaluation.statements import Statement

ITERATIONS = 20
QUESTIONS: dict[str, Callable[[Statement], Any]] = {
    "finding": lambda said: said.named,
    "presence": lambda said: said.presence,
    "side": lambda said: said.side,
    "all three": lambda said: said,
}
EVERY, NAMING = "every_sentence", "sentences_that_name_a_finding"


def bank_purity(read: ReadSentences, seed: int) -> dict[str, Any]:
    """Purity and shared information of prototypes and statements, for all sentences and for those that name a finding.

    Each value has beside it that of k-means with as many clusters as there are prototypes in use, and chance: that of
    random groups of the prototypes' sizes.
    """
    clusters = k_means(read.embedded, len(read.members), seed)
    named = np.array([bool(said.findings) for said in read.statements])
    result: dict[str, Any] = {
        "sentences": len(read.sentences),
        "prototypes": read.prototypes,
        "prototypes_used": len(read.members),
        "prototypes_used_effectively": effective_groups(read.prototype),
    }
    for name, rows in ((EVERY, np.full(len(named), True)), (NAMING, named)):
        kept = [said for said, keep in zip(read.statements, rows) if keep]
        result[name] = {"sentences": len(kept), **_answers(kept, read.prototype[rows], clusters[rows], seed)}
    return result


def k_means(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """The cluster of each row [S, D] by k-means of the directions, as the bank can start: int64 [S]."""
    units = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(rows.dtype).tiny)
    count = min(clusters, len(np.unique(units, axis=0)))
    # One thread: several add in any order, and the same command must give the same numbers.
    with threadpool_limits(1):
        return KMeans(count, n_init=1, max_iter=ITERATIONS, random_state=seed).fit(units).labels_.astype(np.int64)


def prototype_rows(read: ReadSentences) -> list[dict[str, Any]]:
    """For each prototype in use, the most read first: its statement, the share of its sentences that say the same, and
    its most frequent sentences."""
    rows = []
    for index, members in sorted(read.members.items(), key=lambda item: (-len(item[1]), item[0])):
        said = read.majority[index]
        rows.append(
            {
                "prototype": index,
                "sentences": len(members),
                "finding": said.named,
                "side": said.side,
                "presence": said.presence,
                "purity": float(np.mean([read.statements[row] == said for row in members])),
                "typical": [text for text, _ in Counter(read.sentences[row] for row in members).most_common(3)],
            }
        )
    return rows


def _answers(statements: list[Statement], prototypes: np.ndarray, clusters: np.ndarray, seed: int) -> dict[str, Any]:
    measures: dict[str, Callable[[np.ndarray, np.ndarray], float | None]]
    measures = {"purity": purity, "normalized_mutual_information": shared_information}
    found: dict[str, Any] = {name: {} for name in measures}
    for question, answer in QUESTIONS.items():
        labels = numbers_of([answer(said) for said in statements])
        for name, measure in measures.items():
            found[name][question] = _beside(measure, labels, prototypes, clusters, seed)
    return found


def _beside(
    measure: Callable[[np.ndarray, np.ndarray], float | None],
    labels: np.ndarray,
    prototypes: np.ndarray,
    clusters: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    value = measure(labels, prototypes) if len(labels) else None
    if value is None:
        return {"value": None, "k_means": None, "chance": None, "note": "all sentences have the same label"}
    by_chance = [measure(other, prototypes) for other in shuffled(labels, seed)]
    return {"value": value, "k_means": measure(labels, clusters), "chance": mean_of(by_chance)}
