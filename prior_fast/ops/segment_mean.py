"""The mean over each packed segment: tokens to sentences."""

from torch import Tensor

from prior_fast.ops._backend import resolve_backend
from prior_fast.ops._checks import check_offsets, check_tensors
from prior_fast.ops._precision import accumulation_dtype
from prior_fast.ops._segments import segment_ids, segment_lengths, segment_sum

__all__ = ["segment_mean"]


def segment_mean_reference(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    """`segment_mean` in plain PyTorch."""
    ids = segment_ids(cu_seqlens, x.shape[0])
    sums = segment_sum(x.to(accumulation_dtype(x)), ids, cu_seqlens.shape[0] - 1)
    return (sums / segment_lengths(cu_seqlens).clamp(min=1).unsqueeze(1)).to(x.dtype)


def segment_mean(x: Tensor, cu_seqlens: Tensor, *, backend: str | None = None) -> Tensor:
    """The mean of the rows of each segment, zeros for an empty one.

    Args:
        x: [T, D] packed rows.
        cu_seqlens: [S + 1] int32 (or int64) offsets of the segments in the rows.
        backend: see `prior_fast.ops._backend.resolve_backend`.

    Returns:
        [S, D] of the dtype of `x`. Differentiable in x.

    Raises:
        ValueError: a shape, dtype, device, offset or backend that does not fit; the message names it.
    """
    check_tensors(x=(x, "T D"))
    check_offsets("cu_seqlens", cu_seqlens, "x", x)
    resolve_backend("segment_mean", backend, {"reference": None})
    return segment_mean_reference(x, cu_seqlens)
