"""Does the sentence decoder see the findings? The prototypes that it predicts from the image alone, read as findings.

A predicted embedding (a query) reads its strongest prototype, as in training. It says what most training sentences of
that prototype say: a finding and its presence. Training matches the queries one to one with the report's sentences; the
target of a query without a sentence is zero. A query therefore says nothing if its norm is small.

Letters in shapes: N images, Q queries, D embedding width.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.encode import EmbeddedTexts, Encoder, Track, first_image_rows, no_track
from prior_fast.evaluation.matched_findings import matched_findings
from prior_fast.evaluation.read_sentences import ReadSentences, strongest, with_tokens
from prior_fast.evaluation.set_metrics import set_metrics
from prior_fast.evaluation.statements import FINDINGS, STATED, stated_findings
from prior_fast.ops.match_prototypes import match_prototypes


@dataclass(frozen=True)
class Reports:
    """Some studies' images, rows of `PreparedDataset.images` int64 [N], and the sentences of their reports."""

    dataset: PreparedDataset
    rows: np.ndarray
    sentences: list[list[str]]

    @classmethod
    def of(cls, encoder: Encoder, dataset: PreparedDataset, studies: np.ndarray) -> "Reports":
        """The first image and the report of each of the studies int64 [N] whose report has a token.

        As in training, a report has at most as many sentences as the decoder has queries.
        """
        queries = encoder.model.config.sentence_decoder.queries
        whole = with_tokens(encoder, [dataset.sentences(int(study)) for study in studies])
        kept = [index for index, report in enumerate(whole) if report]
        return cls(dataset, first_image_rows(dataset, studies[kept]), [whole[index][:queries] for index in kept])


@dataclass(frozen=True)
class Silence:
    """The L1 norm below which a query says nothing.

    Attributes:
        threshold: the norm that separates best the queries with a sentence from those without: with the greatest sum of
            the shares of both that it gets right.
        auroc: how well the norm separates them at all; None if every query has a sentence, or none has.
    """

    threshold: float
    auroc: float | None


@torch.inference_mode()
def predict_prototypes(encoder: Encoder, reports: Reports, track: Track = no_track) -> Tensor:
    """What the sentence decoder predicts from each image alone: [N, Q, D]."""
    patches = encoder.images(reports.dataset.images, reports.rows, track("images", len(reports.rows))).patches
    predicted = torch.cat([encoder.model.sentence_decoder(part) for part in patches.split(encoder.batch_size)])
    encoder.require_finite("predicted prototypes", predicted)
    return predicted


def find_silence(encoder: Encoder, reports: Reports, predicted: Tensor) -> Silence:
    """Choose the threshold on reports whose sentences are matched to the predicted [N, Q, D] as in training."""
    texts = encoder.texts(reports.sentences)
    matched = match_prototypes(predicted.to(texts.prototypes.dtype), texts.prototypes, texts.cu_sentences) >= 0
    return separate(norms(predicted).ravel(), matched.cpu().numpy().ravel())


def separate(sizes: np.ndarray, matched: np.ndarray) -> Silence:
    """The threshold between the norms [M] of matched queries, bool [M], and of the others."""
    if matched.all() or not matched.any():
        return Silence(0.0, None)
    false, true, thresholds = roc_curve(matched, sizes)
    best = int((true - false).argmax())
    # The first threshold is infinite: no query would speak. It is the best if norms tell nothing; then all speak.
    return Silence(float(thresholds[best]) if best else 0.0, float(roc_auc_score(matched, sizes)))


def norms(predicted: Tensor) -> np.ndarray:
    """The L1 norms, which training draws to zero without a sentence: [N, Q, D] -> [N, Q]."""
    return predicted.float().abs().sum(dim=-1).cpu().numpy()


def findings_of_prototypes(read: ReadSentences) -> np.ndarray:
    """The findings that most sentences of each prototype state: bool [K, C], none for a prototype without sentences."""
    stated = np.zeros((read.prototypes, len(FINDINGS)), bool)
    for index, members in read.members.items():
        said = Counter(read.statements[row].findings for row in members).most_common(1)[0][0]
        stated[index] = [(name, STATED) in said for name in FINDINGS]
    return stated


def spoken_findings(prototype: np.ndarray, speaks: np.ndarray, stated: np.ndarray) -> np.ndarray:
    """The findings that the speaking queries of each image state: bool [N, C].

    prototype int64 [N, Q], speaks bool [N, Q], stated bool [K, C] of the prototypes.
    """
    return (stated[prototype] & speaks[:, :, None]).any(axis=1)


def true_findings(reports: Sequence[Sequence[str]]) -> np.ndarray:
    """The findings that each report states, by its words: bool [N, C]."""
    return np.array([[name in found for name in FINDINGS] for found in map(stated_findings, reports)])


@dataclass(frozen=True)
class GeneratedFindings:
    """truth and predicted bool [N, C], by the order of `FINDINGS`, and the metrics."""

    truth: np.ndarray
    predicted: np.ndarray
    metrics: dict[str, Any]


def generated_findings(
    encoder: Encoder,
    reports: Reports,
    validation: Reports,
    read: ReadSentences,
    seed: int,
    track: Track = no_track,
) -> GeneratedFindings:
    """Compare the findings that the predicted prototypes state with those of the reports.

    `from_reports` are the same metrics for the reports' own sentences, read from the bank and interpreted in the same
    way: what the decoder would reach if it predicted every sentence perfectly.

    validation: the reports on which the threshold of the norm is chosen.
    read: the training sentences, which give the prototypes their meaning.
    """
    silence = find_silence(encoder, validation, predict_prototypes(encoder, validation, track))
    predicted = predict_prototypes(encoder, reports, track)
    count, queries = predicted.shape[:2]
    prototype = strongest(encoder, predicted.flatten(0, 1)).view(count, queries).cpu().numpy()
    speaks, stated = norms(predicted) >= silence.threshold, findings_of_prototypes(read)
    truth, said = true_findings(reports.sentences), spoken_findings(prototype, speaks, stated)
    texts = encoder.texts(reports.sentences)
    by_sentence = true_findings([[sentence] for sentence in _encoded(reports, texts)])
    metrics = {
        **set_metrics(truth, said, FINDINGS, seed),
        "matched": matched_findings(by_sentence, stated, predicted, prototype, texts, seed),
        "silence": {
            "l1_norm_below": silence.threshold,
            "auroc_of_norm": silence.auroc,
            "chosen_on_images": len(validation.rows),
        },
        "queries": queries,
        "speaking_queries": float(speaks.sum(axis=1).mean()),
        "sentences": float(np.mean([len(report) for report in reports.sentences])),
        "from_reports": set_metrics(truth, _of_reports(encoder, texts, stated), FINDINGS, seed),
    }
    return GeneratedFindings(truth, said, metrics)


def _encoded(reports: Reports, texts: EmbeddedTexts) -> list[str]:
    """The sentences of `texts`: a report that is too long lost its last ones."""
    counts = texts.cu_sentences.diff().tolist()
    return [sentence for report, count in zip(reports.sentences, counts) for sentence in report[:count]]


def _of_reports(encoder: Encoder, texts: EmbeddedTexts, stated: np.ndarray) -> np.ndarray:
    """The findings that the reports' own sentences state through the bank: bool [N, C]."""
    prototype = strongest(encoder, texts.sentences).cpu().numpy()
    offsets = texts.cu_sentences.tolist()
    return np.array([stated[prototype[begin:end]].any(axis=0) for begin, end in pairwise(offsets)])
