"""Pooling each packed segment with softmax weights: the second half of self-attention pooling."""

import torch
from torch import Tensor

from prior_fast.ops._backend import resolve_backend
from prior_fast.ops._checks import check_offsets, check_tensors
from prior_fast.ops._precision import accumulation_dtype
from prior_fast.ops._segments import segment_ids, segment_sum

__all__ = ["segment_softmax_pool"]


def segment_softmax_pool_reference(x: Tensor, scores: Tensor, cu_seqlens: Tensor) -> Tensor:
    """`segment_softmax_pool` in plain PyTorch."""
    dtype = accumulation_dtype(x)
    rows, logits = x.to(dtype), scores.to(dtype)
    segments = cu_seqlens.shape[0] - 1
    ids = segment_ids(cu_seqlens, x.shape[0])
    with torch.no_grad():
        lowest = logits.new_full((segments,), -torch.inf)
        maxima = lowest.scatter_reduce(0, ids, logits, "amax")
    weights = torch.exp(logits - maxima[ids])
    weights = weights / segment_sum(weights, ids, segments)[ids]
    return segment_sum(weights.unsqueeze(1) * rows, ids, segments).to(x.dtype)


def segment_softmax_pool(x: Tensor, scores: Tensor, cu_seqlens: Tensor, *, backend: str | None = None) -> Tensor:
    """sum_t softmax(scores)_t x_t over the rows t of each segment, zeros for an empty one.

    Args:
        x: [T, D] packed rows.
        scores: [T] finite logits, of the dtype of `x`.
        cu_seqlens: [S + 1] int32 (or int64) offsets of the segments in the rows.
        backend: see `prior_fast.ops._backend.resolve_backend`.

    Returns:
        [S, D] of the dtype of `x`. Differentiable in x and scores.

    Raises:
        ValueError: a shape, dtype, device, offset or backend that does not fit; the message names it.
    """
    check_tensors(x=(x, "T D"), scores=(scores, "T"))
    check_offsets("cu_seqlens", cu_seqlens, "x", x)
    resolve_backend("segment_softmax_pool", backend, {"reference": None})
    return segment_softmax_pool_reference(x, scores, cu_seqlens)
