"""The mean over each packed segment: tokens to sentences."""

from typing import Any

import torch
from torch import Tensor

from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.checks import check_offsets, check_tensors
from prior_fast.ops.common.cpp import with_cpp
from prior_fast.ops.common.precision import accumulation_dtype
from prior_fast.ops.common.segment_mean_cpp import segment_mean_cpp, surely_fits
from prior_fast.ops.common.segments import segment_ids, segment_lengths, segment_sum
from prior_fast.ops.common.triton import with_triton

__all__ = ["segment_mean"]


def segment_mean_reference(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    """`segment_mean` in plain PyTorch."""
    ids = segment_ids(cu_seqlens, x.shape[0])
    sums = segment_sum(x.to(accumulation_dtype(x)), ids, cu_seqlens.shape[0] - 1)
    return (sums / segment_lengths(cu_seqlens).clamp(min=1).unsqueeze(1)).to(x.dtype)


@torch.library.custom_op("prior_fast::segment_mean", mutates_args=())
def _segment_mean(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    from prior_fast.kernels.segment_mean import segment_mean_fwd

    return segment_mean_fwd(x.contiguous(), cu_seqlens.contiguous())


@_segment_mean.register_fake
def _(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    return x.new_empty(cu_seqlens.shape[0] - 1, x.shape[1])


@torch.library.custom_op("prior_fast::segment_mean_backward", mutates_args=())
def _segment_mean_backward(dy: Tensor, cu_seqlens: Tensor, rows: int) -> Tensor:
    from prior_fast.kernels.segment_mean import segment_mean_bwd

    return segment_mean_bwd(dy.contiguous(), cu_seqlens.contiguous(), rows)


@_segment_mean_backward.register_fake
def _(dy: Tensor, cu_seqlens: Tensor, rows: int) -> Tensor:
    return dy.new_empty(rows, dy.shape[1])


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    x, cu_seqlens = inputs
    ctx.save_for_backward(cu_seqlens)
    ctx.rows = x.shape[0]


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
    (cu_seqlens,) = ctx.saved_tensors
    return _segment_mean_backward(dy, cu_seqlens, ctx.rows), None


_segment_mean.register_autograd(_backward, setup_context=_setup_context)


def segment_mean(x: Tensor, cu_seqlens: Tensor, *, backend: str | None = None) -> Tensor:
    """The mean of the rows of each segment, zeros for an empty one.

    Args:
        x: [T, D] packed rows.
        cu_seqlens: [S + 1] int32 (or int64) offsets of the segments in the rows.
        backend: see `prior_fast.ops.common.backend.resolve_backend`.

    Returns:
        [S, D] of the dtype of `x`. Differentiable in x.

    Raises:
        ValueError: a shape, dtype, device, offset or backend that does not fit; the message names it.
    """
    if surely_fits(x, cu_seqlens, backend):
        return segment_mean_cpp(x, cu_seqlens)
    check_tensors(x=(x, "T D"))
    check_offsets("cu_seqlens", cu_seqlens, "x", x)
    chosen = resolve_backend("segment_mean", backend, with_cpp(x, with_triton(x)))
    if chosen == "cpp":
        return segment_mean_cpp(x, cu_seqlens)
    if chosen == "triton":
        return _segment_mean(x, cu_seqlens)
    return segment_mean_reference(x, cu_seqlens)
