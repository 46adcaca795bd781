"""Does the prediction that is matched to a sentence say what the sentence says?

Letters in shapes: N images, Q queries, S sentences, K prototypes, C findings, D embedding width.
"""

from typing import Any

import numpy as np
from torch import Tensor

from prior_fast.evaluation.classification_metrics import metric
from prior_fast.evaluation.encode import EmbeddedTexts
from prior_fast.evaluation.purity import mean_of
from prior_fast.evaluation.set_metrics import pairings
from prior_fast.ops.match_prototypes import match_prototypes


def matched_findings(
    truth: np.ndarray, stated: np.ndarray, predicted: Tensor, prototype: np.ndarray, texts: EmbeddedTexts, seed: int
) -> dict[str, Any]:
    """The share of the findings that sentences state which their matched predictions state too.

    Predictions and sentences are matched one to one as in training. Chance is the mean over random pairings of the
    reports with the predictions for other images, which are matched anew: matching chooses the nearest sentence, and
    that alone is worth something.

    truth: bool [S, C], the findings that each sentence states.
    stated: bool [K, C], those of each prototype.
    predicted, prototype: [N, Q, D] and the strongest prototypes, int64 [N, Q].
    texts: the N reports.
    """

    def share(order: np.ndarray) -> float:
        own = predicted[order.tolist()].to(texts.prototypes.dtype)
        match = match_prototypes(own, texts.prototypes, texts.cu_sentences).cpu().numpy()
        image, query = np.nonzero(match >= 0)
        said = np.zeros_like(truth)
        said[begin[image] + match[image, query]] = stated[prototype[order][image, query]]
        return float((truth & said).sum() / truth.sum())

    count, begin = int(truth.sum()), texts.cu_sentences.cpu().numpy()
    if not count:
        return {"stated": 0, **metric(None, None, "no sentence states a finding")}
    images = len(prototype)
    chance = mean_of([share(order) for order in pairings(images, seed)])
    return {"stated": count, **metric(share(np.arange(images)), chance)}
