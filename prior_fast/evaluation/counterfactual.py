"""Does a reconstructed image show what the report says? Errors inside a finding's mask with the true report and others.

An image is reconstructed from the same masked embedding with several reports. If the decoder draws a finding where and
as large as the report says, the error inside the annotated mask grows when the report does not say it.

Letters in shapes: T targets (one finding in one image).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.classification_metrics import metric
from prior_fast.evaluation.encode import Encoder, Track, no_track
from prior_fast.evaluation.pointing import Target, targets
from prior_fast.evaluation.read_sentences import with_tokens
from prior_fast.evaluation.reconstruct import channel_masks, reconstruct
from prior_fast.evaluation.statements import FINDINGS, LEFT, RIGHT, read_statement, sides_of_finding, swap_sides

TRUE = "true"
EQUAL = 1e-5  # relative difference of errors below which they count as equal: rounding alone makes smaller ones
NOT_STATED, NOTHING_LEFT = "the report does not state the finding", "the report has no other sentence"
# What the true report is compared with, by its name in metrics.json.
COMPARISONS = {
    "without_finding": "without the sentences that state the finding",
    "without_others": "without as many other sentences instead, a control",
    "sides_swapped": "with left and right exchanged; findings of one side only",
    "wrong_report": "the report of another study",
}


@dataclass(frozen=True)
class Errors:
    """The errors of the targets that could be measured.

    Attributes:
        targets: T of them.
        squared: for the true report and each comparison float64 [T], the mean squared error inside the mask, in squared
            shares of the range from black to white; nan where the comparison does not exist.
        skipped: for each reason the number of targets that could not be measured.
    """

    targets: list[Target]
    squared: Mapping[str, np.ndarray]
    skipped: Mapping[str, int]


def measure_errors(
    encoder: Encoder, dataset: PreparedDataset, studies: np.ndarray, seed: int, track: Track = no_track
) -> Errors:
    """Reconstruct every annotated image of some studies int64 with each report, and measure inside the masks.

    A report has at most as many sentences as in training: as the sentence decoder has queries.
    """
    queries = encoder.model.config.sentence_decoder.queries
    reports = with_tokens(encoder, [dataset.sentences(study)[:queries] for study in range(len(dataset))])
    owner = {row: int(study) for study in studies for row in dataset.image_rows(int(study))}
    rng = np.random.default_rng([seed, len(dataset)])
    kept: list[Target] = []
    texts: list[dict[str, list[str]]] = []
    skipped: Counter[str] = Counter()
    for target in targets(dataset.annotations(), FINDINGS):
        if target.image_row not in owner:
            continue
        reason, versions = report_versions(reports, owner[target.image_row], target.finding, rng)
        if reason:
            skipped[reason] += 1
        else:
            kept.append(target)
            texts.append(versions)
    squared = _reconstructed_errors(encoder, dataset, kept, texts, seed, track) if kept else {}
    return Errors(kept, squared, dict(skipped))


def report_versions(
    reports: Sequence[Sequence[str]], study: int, finding: str, rng: np.random.Generator
) -> tuple[str, dict[str, list[str]]]:
    """The true report and its versions, for the comparisons that exist; or the reason why there can be none.

    A sentence states the finding if it names it and does not deny it.

    Returns:
        The reason, "" if there is none, and for `TRUE` and each comparison its sentences.
    """
    own = list(reports[study])
    stating = [index for index, sentence in enumerate(own) if read_statement(sentence).asserts(finding)]
    others = [index for index in range(len(own)) if index not in stating]
    if not stating:
        return NOT_STATED, {}
    if not others:
        return NOTHING_LEFT, {}
    versions = {TRUE: own, "without_finding": [own[index] for index in others]}
    if len(others) >= len(stating):
        dropped = set(rng.choice(others, len(stating), replace=False).tolist())
        versions["without_others"] = [sentence for index, sentence in enumerate(own) if index not in dropped]
    sides = sides_of_finding(own, finding)
    if sides in ({LEFT}, {RIGHT}):
        versions["sides_swapped"] = [swap_sides(sentence) for sentence in own]
    wrong = [index for index in range(len(reports)) if index != study and reports[index]]
    if wrong:
        versions["wrong_report"] = list(reports[wrong[int(rng.integers(len(wrong)))]])
    return "", versions


def summarize(errors: Errors) -> dict[str, Any]:
    """For all findings together and for each: every comparison that was made."""
    names = np.array([target.finding for target in errors.targets])
    return {
        "targets": len(errors.targets) + sum(errors.skipped.values()),
        "measured": len(errors.targets),
        "skipped": dict(errors.skipped),
        "error": "mean squared difference inside the mask, as a share of the squared range from black to white",
        "overall": _compared(errors.squared, np.full(len(names), True)),
        "findings": {name: _compared(errors.squared, names == name) for name in FINDINGS if (names == name).any()},
    }


def compare(own: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """The true report's errors [T] against another report's, nan where there is none.

    `true_is_better` is the share of the targets where the true report's error is lower; equal errors count half.
    """
    there = ~np.isnan(other)
    own, other = own[there], other[there]
    if not len(own):
        return {"targets": 0, "true_is_better": metric(None, 0.5, "no target has this comparison")}
    equal = np.isclose(own, other, rtol=EQUAL, atol=0)
    better = float((((own < other) & ~equal) + 0.5 * equal).mean())
    return {
        "targets": len(own),
        "true_is_better": metric(better, 0.5),
        "equal": int(equal.sum()),
        "error_true": float(own.mean()),
        "error_other": float(other.mean()),
    }


def _compared(squared: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, Any]:
    return {name: compare(squared[TRUE][rows], squared[name][rows]) for name in COMPARISONS if name in squared}


def _reconstructed_errors(
    encoder: Encoder,
    dataset: PreparedDataset,
    kept: Sequence[Target],
    texts: Sequence[Mapping[str, list[str]]],
    seed: int,
    track: Track,
) -> dict[str, np.ndarray]:
    rows = sorted({target.image_row for target in kept})
    patches = encoder.images(dataset.images, rows, track("images", len(rows))).patches
    masks = channel_masks(encoder, len(rows), seed)
    image = np.array([rows.index(target.image_row) for target in kept])
    squared = {name: np.full(len(kept), np.nan) for name in (TRUE, *COMPARISONS)}
    advance = track("reconstructions", sum(map(len, texts)))
    for name, values in squared.items():
        there = [index for index, versions in enumerate(texts) if name in versions]
        # In parts: all reconstructions of a large split would fill the memory.
        for first in range(0, len(there), encoder.batch_size):
            part = there[first : first + encoder.batch_size]
            mask = None if masks is None else masks[image[part]]
            images = reconstruct(encoder, patches[image[part]], [texts[index][name] for index in part], mask, advance)
            for index, gray in zip(part, images):
                target = kept[index]
                difference = gray.astype(np.float64) - dataset.image(target.image_row) / 255
                values[index] = np.square(difference)[target.mask].mean()
    return squared
