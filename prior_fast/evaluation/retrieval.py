"""Retrieval of reports by images (supplement 3.3) and of images by reports.

The candidates are the chosen images and whole reports. The reports are those of the images' own studies, or those of
another dataset if the images have none. With by=study there are no classes, and the query's own study is the answer.
"""

from functools import partial
from typing import Any

import numpy as np

from prior_fast.console import busy
from prior_fast.errors import UsageError
from prior_fast.evaluation.config import EvaluationConfig
from prior_fast.evaluation.encode import Encoder, Track, no_track
from prior_fast.evaluation.names import shortened
from prior_fast.evaluation.ranking import first_hit, ranks
from prior_fast.evaluation.result import EvaluationResult, EvaluationSet, table_row
from prior_fast.evaluation.retrieval_metrics import DIRECTIONS, Truth, merge, retrieval_metrics
from prior_fast.evaluation.scores import PairScores, score_images
from prior_fast.evaluation.selection import Chosen

SHOWN = 5  # best reports of each image in predictions.csv
DRAWN = 5  # queries in a picture of by=study
NAME_WIDTH = 24  # characters of a study's name in it


def retrieval(
    encoder: Encoder, evaluation_set: EvaluationSet, config: EvaluationConfig, track: Track = no_track
) -> EvaluationResult:
    """Rank the reports for each image, and the images for each report.

    Raises:
        UsageError: a report has no token, or rank_within is set and the numbers of images and reports differ.
        RunError: an embedding or a score is not finite.
    """
    images, reports = evaluation_set.images, evaluation_set.reports or evaluation_set.images
    if config.rank_within and len(images) != len(reports):
        raise UsageError(
            f"rank_within={config.rank_within} cuts images and reports into pairs, but there are {len(images)} and "
            f"{len(reports)}: set per_class and reports_per_class so that both numbers are equal, or rank_within=0"
        )
    sentences = reports.sentences()
    try:
        texts = encoder.texts(sentences, track("reports", len(sentences)))
    except ValueError as error:
        raise UsageError(f"{reports.source.root}: {error}") from None
    pairs = score_images(encoder, images.source.images, images.rows, texts, track)
    encoder.require_finite("scores", pairs.whole, pairs.local)
    text = unique_texts(sentences)
    with busy("ranking"):
        found = retrieval_metrics(
            pairs,
            Truth(
                images.truth if images.answers else None,
                reports.truth if reports.answers else None,
                text if same_studies(images, reports) else None,
            ),
            config.local_weight,
            config.rank_within,
            config.cutoffs,
        )
        found["reports_cut"] = texts.cut
        header, rows = _predictions(images, reports, pairs, text, config)
    return EvaluationResult(
        found, _table(found), header, rows, pictures=_pictures(images, reports, sentences, text, pairs, config)
    )


def same_studies(images: Chosen, reports: Chosen) -> bool:
    """Whether report i belongs to the study of image i, for all i."""
    if images is reports:
        return True
    return images.source.root.resolve() == reports.source.root.resolve() and images.ids == reports.ids


def unique_texts(reports: list[list[str]]) -> np.ndarray:
    """The number of each report's text among the different texts, in the order of first appearance: int64 [N]."""
    numbers: dict[tuple[str, ...], int] = {}
    return np.array([numbers.setdefault(tuple(report), len(numbers)) for report in reports], np.int64)


def _table(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for direction in DIRECTIONS:
        for level, hit in (("class_level", "same class"), ("instance_level", "own study")):
            for key, value in found[direction].get(level, {}).items():
                name = key.replace("_at_", " @ ").replace("_", " ")
                rows.append(table_row(f"{direction.replace('_', ' ')}: {name}, {hit}", value))
    return rows


def _predictions(
    images: Chosen, reports: Chosen, pairs: PairScores, text: np.ndarray, config: EvaluationConfig
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The best reports of each image among all reports. Of reports with the same text only the first is named."""
    merged, own = merge(pairs, text)
    _, first = np.unique(text, return_index=True)
    scores = merged.combined(axis=1, local_weight=config.local_weight)
    paired, ids, queries, own_class = same_studies(images, reports), reports.ids, images.ids, images.class_names
    rank = ranks(first_hit(scores, own)) if paired else None
    rows = []
    for index, order in enumerate(np.argsort(-scores, axis=1, kind="stable")[:, :SHOWN]):
        best = [first[column] for column in order]
        padding = [""] * (SHOWN - len(best))
        truth = [] if rank is None else [f"{rank[index]:g}"]
        classes = [] if paired else [*(reports.answers[reports.truth[report]] for report in best), *padding]
        names = [*(ids[report] for report in best), *padding]
        rows.append((queries[index], *own_class[index : index + 1], *truth, *names, *classes))
    places = range(1, SHOWN + 1)
    own_columns = ("rank_of_own_report",) if paired else ()
    class_columns = () if paired else tuple(f"class_{place}" for place in places)
    named = (images.source.id_column, *(["class"] if own_class else []))
    return (*named, *own_columns, *(f"report_{place}" for place in places), *class_columns), rows


def _pictures(
    images: Chosen,
    reports: Chosen,
    sentences: list[list[str]],
    text: np.ndarray,
    pairs: PairScores,
    config: EvaluationConfig,
) -> dict[str, Any]:
    if not config.pictures:
        return {}
    # matplotlib takes a second to load.
    from prior_fast.plotting.retrieved import Found, draw_retrieved_images, draw_retrieved_reports

    def found(scores: np.ndarray, queries: Chosen, candidates: Chosen) -> Found:
        # The first query of each class. Without classes, the first studies, each right for reports of its own text.
        _, rows = np.unique(queries.truth if queries.answers else text, return_index=True)
        rows = rows if queries.answers else np.sort(rows)[:DRAWN]
        best = np.argsort(-scores[rows], axis=1, kind="stable")[:, :3]
        if queries.answers:
            return Found(rows, best, queries.truth[rows], candidates.truth[best], images.answers)
        return Found(rows, best, text[rows], text[best], first_names)

    ids, (_, first) = images.ids, np.unique(text, return_index=True)
    first_names = tuple(shortened(ids[study], NAME_WIDTH) for study in first)

    shown, texts = images.source.images, [" ".join(report) for report in sentences]
    by_image, by_text = (pairs.combined(axis, config.local_weight) for axis in (1, 0))
    return {
        "retrieved-reports.png": partial(
            draw_retrieved_reports, found(by_image, images, reports), shown, images.rows, texts
        ),
        "retrieved-images.png": partial(
            draw_retrieved_images, found(by_text.T, reports, images), shown, images.rows, texts
        ),
    }
