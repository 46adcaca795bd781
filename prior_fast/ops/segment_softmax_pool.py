"""Pooling each packed segment with softmax weights: the second half of self-attention pooling."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.checks import check_offsets, check_tensors
from prior_fast.ops.common.cpp import offsets_fit, surely_serves, with_cpp
from prior_fast.ops.common.precision import accumulation_dtype
from prior_fast.ops.common.segments import segment_ids, segment_sum
from prior_fast.ops.common.triton import wants_gradient, with_triton

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


@torch.library.custom_op("prior_fast::segment_softmax_pool", mutates_args=())
def _segment_softmax_pool(x: Tensor, scores: Tensor, cu_seqlens: Tensor) -> Tensor:
    from prior_fast.kernels.segment_softmax_pool import segment_softmax_pool_fwd

    return segment_softmax_pool_fwd(x.contiguous(), scores.contiguous(), cu_seqlens.contiguous())


@_segment_softmax_pool.register_fake
def _(x: Tensor, scores: Tensor, cu_seqlens: Tensor) -> Tensor:
    return x.new_empty(cu_seqlens.shape[0] - 1, x.shape[1])


@torch.library.custom_op("prior_fast::segment_softmax_pool_backward", mutates_args=())
def _segment_softmax_pool_backward(dy: Tensor, x: Tensor, scores: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    from prior_fast.kernels.segment_softmax_pool import segment_softmax_pool_bwd

    return segment_softmax_pool_bwd(dy.contiguous(), x.contiguous(), scores.contiguous(), cu_seqlens.contiguous())


@_segment_softmax_pool_backward.register_fake
def _(dy: Tensor, x: Tensor, scores: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), scores.new_empty(scores.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
    return *_segment_softmax_pool_backward(dy, *ctx.saved_tensors), None


_segment_softmax_pool.register_autograd(_backward, setup_context=_setup_context)

# csrc/segments_cpu.cpp implements both for CPUs.
torch.library.define("prior_fast::segment_softmax_pool_cpp", "(Tensor x, Tensor scores, Tensor cu_seqlens) -> Tensor")
torch.library.define(
    "prior_fast::segment_softmax_pool_cpp_backward",
    "(Tensor dy, Tensor x, Tensor scores, Tensor cu_seqlens) -> (Tensor, Tensor)",
)


@torch.library.register_fake("prior_fast::segment_softmax_pool_cpp")
def _(x: Tensor, scores: Tensor, cu_seqlens: Tensor) -> Tensor:
    return x.new_empty(cu_seqlens.shape[0] - 1, x.shape[1])


@torch.library.register_fake("prior_fast::segment_softmax_pool_cpp_backward")
def _(dy: Tensor, x: Tensor, scores: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), scores.new_empty(scores.shape)


_CPP = torch.ops.prior_fast.segment_softmax_pool_cpp.default
_CPP_BACKWARD = torch.ops.prior_fast.segment_softmax_pool_cpp_backward.default


# torch.library.register_autograd would take longer than the kernels of a small batch.
class _SegmentSoftmaxPoolCpp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scores: Tensor, cu_seqlens: Tensor) -> Tensor:
        ctx.save_for_backward(x, scores, cu_seqlens)
        return _CPP(x, scores, cu_seqlens)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        return *_CPP_BACKWARD(dy, *ctx.saved_tensors), None


def _segment_softmax_pool_cpp(x: Tensor, scores: Tensor, cu_seqlens: Tensor) -> Tensor:
    return (_SegmentSoftmaxPoolCpp.apply if wants_gradient(x, scores) else _CPP)(x, scores, cu_seqlens)


def segment_softmax_pool(x: Tensor, scores: Tensor, cu_seqlens: Tensor, *, backend: str | None = None) -> Tensor:
    """sum_t softmax(scores)_t x_t over the rows t of each segment, zeros for an empty one.

    Args:
        x: [T, D] packed rows.
        scores: [T] finite logits, of the dtype of `x`.
        cu_seqlens: [S + 1] int32 (or int64) offsets of the segments in the rows.
        backend: see `prior_fast.ops.common.backend.resolve_backend`.

    Returns:
        [S, D] of the dtype of `x`. Differentiable in x and scores.

    Raises:
        ValueError: a shape, dtype, device, offset or backend that does not fit; the message names it.
    """
    shapes_fit = surely_serves(backend, x, scores) and x.dim() == 2 and scores.shape == x.shape[:1]
    if shapes_fit and offsets_fit(cu_seqlens, x.shape[0]):
        return _segment_softmax_pool_cpp(x, scores, cu_seqlens)
    check_tensors(x=(x, "T D"), scores=(scores, "T"))
    check_offsets("cu_seqlens", cu_seqlens, "x", x)
    chosen = resolve_backend("segment_softmax_pool", backend, with_cpp(x, with_triton(x)))
    if chosen == "cpp":
        return _segment_softmax_pool_cpp(x, scores, cu_seqlens)
    if chosen == "triton":
        return _segment_softmax_pool(x, scores, cu_seqlens)
    return segment_softmax_pool_reference(x, scores, cu_seqlens)
