"""Retrieval of reports by images and of images by reports (supplement 3.3).

The candidates are the selected studies' first images and whole reports, all of them at once. Class level: a hit is a
candidate of the query's class, its own study included. Instance level: a hit is the query's own study; studies with
identical reports share one text, as in CXR-CLIP's evaluation.
"""

from typing import Any

import numpy as np

from prior_fast.data.store import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation.classification_metrics import Metric, metric
from prior_fast.evaluation.config import EvaluationConfig
from prior_fast.evaluation.encode import EncodedImages, Encoder, Track, no_track
from prior_fast.evaluation.ranking import FirstHit, chance_hit, first_hit, precision_at, ranks, recall_at
from prior_fast.evaluation.scores import PairScores, pair_scores
from prior_fast.evaluation.selection import Selection
from prior_fast.evaluation.zero_shot import Outcome, table_row

CUTOFFS = (1, 5, 10)
SHOWN = 5  # best reports of each image in predictions.csv


def retrieval(
    encoder: Encoder,
    dataset: PreparedDataset,
    selection: Selection,
    images: EncodedImages,
    config: EvaluationConfig,
    track: Track = no_track,
) -> Outcome:
    """Rank the selection's reports for each of its images, and its images for each of its reports.

    images: those of the selection.
    """
    reports = [dataset.sentences(int(study)) for study in selection.studies]
    try:
        texts = encoder.texts(reports, track("reports", len(reports)))
    except ValueError as error:
        raise UsageError(f"{dataset.root}: {error}") from None
    pairs = pair_scores(encoder.model, images, texts, advance=track("scores", len(reports)))
    found = retrieval_metrics(pairs, selection.truth, unique_texts(reports), config.local_weight)
    found["reports_cut"] = texts.cut
    return Outcome(
        metrics=found,
        table=_table(found),
        header=("study_id", "class", "rank_of_own_report", *(f"report_{place + 1}" for place in range(SHOWN))),
        predictions=_predictions(dataset, selection, pairs, unique_texts(reports), config),
    )


def unique_texts(reports: list[list[str]]) -> np.ndarray:
    """The number of each report's text among the different texts, in the order of first appearance: int64 [N]."""
    numbers: dict[tuple[str, ...], int] = {}
    return np.array([numbers.setdefault(tuple(report), len(numbers)) for report in reports], np.int64)


def retrieval_metrics(pairs: PairScores, truth: np.ndarray, text: np.ndarray, local_weight: float) -> dict[str, Any]:
    """Metrics of all pairs [N, N] of N studies.

    truth int64 [N], the classes; text int64 [N], from `unique_texts`.
    """
    same_class = truth[:, None] == truth[None, :]
    by_image = pairs.combined(axis=1, local_weight=local_weight)
    by_text = pairs.combined(axis=0, local_weight=local_weight).T
    merged, own = merge(pairs, text)
    return {
        "image_to_text": {
            "class_level": class_level(by_image, same_class),
            "instance_level": instance_level(merged.combined(axis=1, local_weight=local_weight), own),
        },
        "text_to_image": {
            "class_level": class_level(by_text, same_class),
            "instance_level": instance_level(merged.combined(axis=0, local_weight=local_weight).T, own.T),
        },
        "studies": len(truth),
        "different_texts": own.shape[1],
    }


def merge(pairs: PairScores, text: np.ndarray) -> tuple[PairScores, np.ndarray]:
    """Scores [N, U] with the U different texts only, and which of them is each image's own: bool [N, U]."""
    _, first = np.unique(text, return_index=True)
    own = text[:, None] == np.arange(len(first))[None, :]
    return PairScores(pairs.whole[:, first], pairs.local[:, first]), own


def class_level(scores: np.ndarray, same_class: np.ndarray) -> dict[str, Metric]:
    """Precision at each cutoff: scores, same_class [Q, C]; chance is the share of candidates of the query's class."""
    chance, result = float(same_class.mean()), {}
    for k in CUTOFFS:
        if k > scores.shape[1]:
            result[f"precision_at_{k}"] = metric(None, chance, f"only {scores.shape[1]} candidates")
        else:
            result[f"precision_at_{k}"] = metric(float(precision_at(k, scores, same_class).mean()), chance)
    return result


def instance_level(scores: np.ndarray, own: np.ndarray) -> dict[str, Metric]:
    """Recall at each cutoff and mean rank of the first of the query's own candidates: scores, own [Q, C]."""
    hit, random = first_hit(scores, own), chance_hit(own)
    result = {}
    for k in CUTOFFS:
        if k > scores.shape[1]:
            result[f"recall_at_{k}"] = metric(None, None, f"only {scores.shape[1]} candidates")
        else:
            result[f"recall_at_{k}"] = metric(_mean_recall(k, hit), _mean_recall(k, random))
    result["mean_rank"] = metric(float(ranks(hit).mean()), float(ranks(random).mean()))
    return result


def _mean_recall(k: int, hit: FirstHit) -> float:
    return float(recall_at(k, hit).mean())


def _table(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for direction in ("image_to_text", "text_to_image"):
        for level, hit in (("class_level", "same class"), ("instance_level", "own study")):
            for key, value in found[direction][level].items():
                name = key.replace("_at_", " @ ").replace("_", " ")
                rows.append(table_row(f"{direction.replace('_', ' ')}: {name}, {hit}", value))
    return rows


def _predictions(
    dataset: PreparedDataset, selection: Selection, pairs: PairScores, text: np.ndarray, config: EvaluationConfig
) -> list[tuple[Any, ...]]:
    merged, own = merge(pairs, text)
    scores = merged.combined(axis=1, local_weight=config.local_weight)
    rank = ranks(first_hit(scores, own))
    _, first = np.unique(text, return_index=True)
    ids = dataset.study_ids[selection.studies]
    rows = []
    for index, order in enumerate(np.argsort(-scores, axis=1, kind="stable")[:, :SHOWN]):
        best = [int(ids[first[column]]) for column in order]
        padding = [""] * (SHOWN - len(best))
        rows.append((int(ids[index]), config.classes[selection.truth[index]], f"{rank[index]:g}", *best, *padding))
    return rows
