"""Metrics of ranking reports for images and images for reports, at the level of classes and of studies.

Class level: a hit is a candidate of the query's class. Instance level: a hit is the query's own study; identical
reports are one text, as in CXR-CLIP's evaluation. Candidates are ranked all at once, or within batches (BenchX).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prior_fast.evaluation.classification_metrics import Metric, metric
from prior_fast.evaluation.ranking import FirstHit, chance_hit, first_hit, precision_at, ranks, recall_at
from prior_fast.evaluation.scores import PairScores

CUTOFFS = (1, 5, 10)
# Some papers report these too. They are left out if there are fewer candidates, or other cutoffs are asked for.
MORE_CUTOFFS = (2, 100)
DIRECTIONS = {"image_to_text": 1, "text_to_image": 0}
NOT_PAIRED = "left out: images and reports are not of the same studies"
NO_CLASSES = "left out: the studies were taken without classes (by=study)"


@dataclass(frozen=True)
class Truth:
    """The ground truth of a retrieval.

    Attributes:
        images, reports: int64 [N], [M], the class of each; None without classes.
        text: int64 [N], the number of each report's text among the different texts, if report i belongs to the study of
            image i; None if images and reports are of different studies.
    """

    images: np.ndarray | None
    reports: np.ndarray | None
    text: np.ndarray | None = None

    def part(self, rows: slice) -> "Truth":
        """The truth of some rows of the images and of the reports."""
        return Truth(*(None if part is None else part[rows] for part in (self.images, self.reports, self.text)))


def retrieval_metrics(
    pairs: PairScores, truth: Truth, local_weight: float, within: int = 0, cutoffs: Sequence[int] = CUTOFFS
) -> dict[str, Any]:
    """Metrics of all pairs [N, M].

    within: candidates are ranked within batches of this many consecutive images and reports. Each metric is the mean
        over the batches, and its name ends in the batch size. The last batch may be smaller. 0: no batches.
    cutoffs: the numbers of best candidates.

    Raises:
        ValueError: there are batches, and the numbers of images and reports differ.
    """
    images, reports = pairs.whole.shape
    if within and images != reports:
        raise ValueError(f"{images} images and {reports} reports can't be cut into pairs")
    slices = [slice(first, first + within) for first in range(0, images, within)] if within else [slice(None)]
    blocks = [(pairs.part(rows, rows), truth.part(rows)) for rows in slices]
    suffix = f"_within_{within}" if within else ""
    found: dict[str, Any] = {}
    for direction, axis in DIRECTIONS.items():
        found[direction] = {}
        if truth.images is not None:
            same = [_class_block(*block, axis, local_weight, cutoffs) for block in blocks]
            found[direction]["class_level"] = _joined(same, suffix)
        else:
            found[direction]["class_level_note"] = NO_CLASSES
        if truth.text is not None:
            own = [_instance_block(*block, axis, local_weight, cutoffs) for block in blocks]
            found[direction]["instance_level"] = _joined(own, suffix)
        else:
            found[direction]["instance_level_note"] = NOT_PAIRED
    if truth.text is None:
        return {**found, "images": images, "reports": reports}
    return {**found, "studies": images, "different_texts": len(np.unique(truth.text))}


def merge(pairs: PairScores, text: np.ndarray) -> tuple[PairScores, np.ndarray]:
    """The scores [N, U] of only the U different texts, and which of them is each image's own: bool [N, U]."""
    numbers, first = np.unique(text, return_index=True)
    return pairs.part(slice(None), first), text[:, None] == numbers[None, :]


def class_level(scores: np.ndarray, same_class: np.ndarray, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, Metric]:
    """Precision and hit rate at each cutoff: scores, same_class [Q, C].

    Hit rate: the share of queries with a candidate of their class among the best k. Queries without any candidate of
    their class are left out, and a note gives their number.
    """
    there = same_class.any(axis=1)
    count, result = scores.shape[1], {}
    note = f"without {int((~there).sum())} queries of classes that no candidate has" if not there.all() else None
    scores, same_class = scores[there], same_class[there]
    more = [k for k in MORE_CUTOFFS if k <= count] if tuple(cutoffs) == CUTOFFS else []
    for name in ("precision", "hit"):
        for k in sorted((*cutoffs, *more)):
            if k > count:
                result[f"{name}_at_{k}"] = metric(None, None, f"only {count} candidates")
            elif not len(scores):
                result[f"{name}_at_{k}"] = metric(None, None, "no candidate is of a query's class")
            elif name == "precision":
                value = float(precision_at(k, scores, same_class).mean())
                result[f"{name}_at_{k}"] = metric(value, float(same_class.mean()), note)
            else:
                value, chance = (
                    _mean_recall(k, hit) for hit in (first_hit(scores, same_class), chance_hit(same_class))
                )
                result[f"{name}_at_{k}"] = metric(value, chance, note)
    return result


def instance_level(scores: np.ndarray, own: np.ndarray, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, Metric]:
    """Recall at each cutoff, and mean and median rank of the query's first own candidate: scores, own [Q, C]."""
    hit, random = first_hit(scores, own), chance_hit(own)
    result = {}
    for k in sorted(cutoffs):
        if k > scores.shape[1]:
            result[f"recall_at_{k}"] = metric(None, None, f"only {scores.shape[1]} candidates")
        else:
            result[f"recall_at_{k}"] = metric(_mean_recall(k, hit), _mean_recall(k, random))
    for name, mean in (("mean_rank", np.mean), ("median_rank", np.median)):
        result[name] = metric(float(mean(ranks(hit))), float(mean(ranks(random))))
    return result


def _class_block(
    pairs: PairScores, truth: Truth, axis: int, local_weight: float, cutoffs: Sequence[int]
) -> dict[str, Metric]:
    assert truth.images is not None and truth.reports is not None
    scores, same = pairs.combined(axis, local_weight), truth.images[:, None] == truth.reports[None, :]
    return class_level(scores, same, cutoffs) if axis else class_level(scores.T, same.T, cutoffs)


def _instance_block(
    pairs: PairScores, truth: Truth, axis: int, local_weight: float, cutoffs: Sequence[int]
) -> dict[str, Metric]:
    assert truth.text is not None
    merged, own = merge(pairs, truth.text)
    scores = merged.combined(axis, local_weight)
    return instance_level(scores, own, cutoffs) if axis else instance_level(scores.T, own.T, cutoffs)


def _joined(blocks: Sequence[dict[str, Metric]], suffix: str) -> dict[str, Metric]:
    """The mean of each metric over the blocks that have it."""
    result = {}
    for name in blocks[0]:
        there = [block[name] for block in blocks if block.get(name, {}).get("value") is not None]
        if len(blocks) == 1 or not there:
            result[name + suffix] = blocks[0][name]
            continue
        value, chance = (float(np.mean([block[key] for block in there])) for key in ("value", "chance"))
        left_out = len(blocks) - len(there)
        notes = [f"without {left_out} of {len(blocks)} batches, which have too few candidates"] if left_out else []
        notes += sorted({block["note"] for block in there if "note" in block})
        result[name + suffix] = metric(value, chance, "; ".join(notes) or None)
    return result


def _mean_recall(k: int, hit: FirstHit) -> float:
    return float(recall_at(k, hit).mean())
