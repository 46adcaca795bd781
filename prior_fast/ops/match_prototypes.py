"""One-to-one matching of generated sentence embeddings to the sentences of their report."""

import torch
from torch import Tensor

from prior_fast.ops.common.checks import check_offsets, check_tensors
from prior_fast.ops.common.precision import accumulation_dtype, full_precision
from prior_fast.ops.common.segments import pad, segment_lengths
from prior_fast.ops.linear_sum_assignment import (
    choose_solver,
    is_strict,
    linear_sum_assignment,
    raise_unless_solved,
    solver_backends,
)

__all__ = ["match_prototypes"]

# In the order of `Metric` in csrc/matching.h.
METRICS = ("l1", "l2", "cosine")
# Up to this number of queries, one GPU launch computes costs and matching; more queries take two steps.
CUDA_QUERIES = 32
_COSINE_EPS = 1e-8


def matching_cost(prediction: Tensor, target: Tensor, cu_seqlens: Tensor, metric: str = "l1") -> Tensor:
    """The costs [B, Q, Q] that `match_prototypes` minimizes, float32 (float64 for float64); no gradient.

    A report's targets are padded with zero vectors to Q. Matching query i to padding therefore costs the norm of the
    query: |p_i|_1 for "l1", |p_i|_2 for "l2", and 0 for "cosine", the negative cosine similarity.
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


# csrc/ implements it: the solver computes the costs itself, so there is no tensor of costs.
torch.library.define(
    "prior_fast::solve_matching",
    "(Tensor prediction, Tensor target, Tensor cu_seqlens, int metric) -> (Tensor, Tensor)",
)


@torch.library.register_fake("prior_fast::solve_matching")
def _(prediction: Tensor, target: Tensor, cu_seqlens: Tensor, metric: int) -> tuple[Tensor, Tensor]:
    match = prediction.new_empty(prediction.shape[:2], dtype=torch.int64)
    return match, prediction.new_empty(prediction.shape[0], dtype=torch.int32)


# A custom op, so that torch.compile keeps one graph although the function reads values on the host.
@torch.library.custom_op("prior_fast::match_prototypes", mutates_args=())
def _match_strictly(prediction: Tensor, target: Tensor, cu_seqlens: Tensor, metric: int) -> Tensor:
    match, status = torch.ops.prior_fast.solve_matching(prediction, target, cu_seqlens, metric)
    raise_unless_solved(status, "cost")
    return match


@_match_strictly.register_fake
def _(prediction: Tensor, target: Tensor, cu_seqlens: Tensor, metric: int) -> Tensor:
    return prediction.new_empty(prediction.shape[:2], dtype=torch.int64)


def match_prototypes(
    prediction: Tensor, target: Tensor, cu_seqlens: Tensor, *, metric: str = "l1", backend: str | None = None
) -> Tensor:
    """Match each query to a sentence of its own report, one to one and with the least total cost (supplement 2.3).

    A report's targets are padded with zero vectors up to Q before matching, as in PRIOR's released code.

    Args:
        prediction: [B, Q, D] the generated embeddings.
        target: [S, D] packed embeddings of the reports' sentences, of the dtype of `prediction`.
        cu_seqlens: [B + 1] int32 (or int64) offsets of the reports in `target`; a report has at most Q sentences.
        metric: "l1", "l2" (distances), or "cosine" (the negative similarity).
        backend: as in `linear_sum_assignment`; "cuda" computes costs and matching in one launch for up to 32 queries.

    Returns:
        [B, Q] int64: the index of the sentence within the report, from 0; -1 for a query matched to padding. On a
        GPU a report with NaN costs gets -1 for all queries; it is an error only with PRIOR_FAST_CHECK=1. No gradient.

    Raises:
        ValueError: a shape, dtype, device, offset, metric or backend that does not fit; where values are checked
            (`prior_fast.ops.common.checks`), a report of more than Q sentences; a prediction or target that is NaN.
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
    chosen = choose_solver("match_prototypes", backend, solver_backends(prediction))
    if chosen == "cpp" or (chosen == "cuda" and queries <= CUDA_QUERIES):
        return _match(prediction.detach(), target.detach(), cu_seqlens, METRICS.index(metric))
    columns = linear_sum_assignment(matching_cost(prediction, target, cu_seqlens, metric), backend=chosen)
    return columns.masked_fill(columns >= segment_lengths(cu_seqlens).unsqueeze(1), -1)


def _match(prediction: Tensor, target: Tensor, cu_seqlens: Tensor, metric: int) -> Tensor:
    """The matching from csrc/, which on a GPU reads bfloat16 and float16 and sums in float32."""
    if prediction.device.type == "cpu":
        dtype = accumulation_dtype(prediction)
        prediction, target = prediction.to(dtype), target.to(dtype)
    arguments = (prediction.contiguous(), target.contiguous(), cu_seqlens.contiguous(), metric)
    if is_strict(prediction, return_status=False):
        return _match_strictly(*arguments)
    return torch.ops.prior_fast.solve_matching(*arguments)[0]
