"""One-to-one matching of generated sentence embeddings to the sentences of their report."""

import torch
from torch import Tensor

from prior_fast.ops._backend import resolve_backend
from prior_fast.ops._checks import check_offsets, check_tensors
from prior_fast.ops._precision import accumulation_dtype, full_precision
from prior_fast.ops._segments import pad, segment_lengths
from prior_fast.ops.linear_sum_assignment import linear_sum_assignment

__all__ = ["match_prototypes"]

METRICS = ("l1", "l2", "cosine")
_COSINE_EPS = 1e-8


def matching_cost(prediction: Tensor, target: Tensor, cu_seqlens: Tensor, metric: str = "l1") -> Tensor:
    """The costs [B, Q, Q] that `match_prototypes` minimizes, float32 (float64 for float64); no gradient.

    A report's targets are padded with zero vectors to Q, so taking padding costs query i its own norm: |p_i|_1,
    |p_i|_2, or 0 where the metric is cosine, the negative cosine similarity.
    """
    dtype = accumulation_dtype(prediction)
    with full_precision(prediction):
        queries = prediction.detach().to(dtype)
        padded = pad(target.detach().to(dtype), cu_seqlens, prediction.shape[1])
        if metric == "cosine":
            return -(_unit(queries) @ _unit(padded).mT)
        p = 1.0 if metric == "l1" else 2.0
        # The product form of the Euclidean distance loses half of the digits of near neighbours.
        return torch.cdist(queries, padded, p=p, compute_mode="donot_use_mm_for_euclid_dist")


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1, eps=_COSINE_EPS)


def match_prototypes(
    prediction: Tensor, target: Tensor, cu_seqlens: Tensor, *, metric: str = "l1", backend: str | None = None
) -> Tensor:
    """Which target sentence of its own report each query takes, in the matching of least total cost.

    A report's targets are padded with zero vectors up to Q before matching.

    Args:
        prediction: [B, Q, D] the generated embeddings.
        target: [S, D] packed embeddings of the reports' sentences, of the dtype of `prediction`.
        cu_seqlens: [B + 1] int32 (or int64) offsets of the reports in `target`; a report has at most Q sentences.
        metric: "l1", "l2" (distances), or "cosine" (the negative similarity).
        backend: that of `linear_sum_assignment`.

    Returns:
        [B, Q] int64: the index of the sentence within the report, from 0; -1 where the query takes padding.
        No gradient.

    Raises:
        ValueError: a shape, dtype, device, offset, metric or backend that does not fit; where values are checked
            (`prior_fast.ops._checks`), a report of more than Q sentences; a prediction or target that is NaN.
    """
    check_tensors(prediction=(prediction, "B Q D"), target=(target, "S D"))
    reports, queries = prediction.shape[:2]
    check_offsets(
        "cu_seqlens",
        cu_seqlens,
        "target",
        target,
        max_name="Q, the queries of prediction,",
        max_seqlen=queries,
        segments=reports,
    )
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}, wanted one of {', '.join(METRICS)}")
    chosen = resolve_backend("match_prototypes", backend, {"scipy": None, "reference": None})
    columns = linear_sum_assignment(matching_cost(prediction, target, cu_seqlens, metric), backend=chosen)
    return columns.masked_fill(columns >= segment_lengths(cu_seqlens).unsqueeze(1), -1)
