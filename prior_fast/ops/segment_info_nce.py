"""Symmetric InfoNCE within each report: PRIOR's local alignment of sentences."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Parameter

from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.checks import check_offsets, check_scalar, check_tensors
from prior_fast.ops.common.cpp import offsets_fit, surely_serves, with_cpp
from prior_fast.ops.common.precision import accumulation_dtype, full_precision
from prior_fast.ops.common.segments import pad, padding_mask, segment_lengths
from prior_fast.ops.common.triton import wants_gradient, with_triton

__all__ = ["segment_info_nce"]


def segment_info_nce_reference(
    a: Tensor, b: Tensor, logit_scale: float | Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> Tensor:
    """`segment_info_nce` in plain PyTorch, by padding each segment."""
    dtype = accumulation_dtype(a)
    scale = logit_scale.to(dtype) if isinstance(logit_scale, Tensor) else logit_scale
    mask = padding_mask(cu_seqlens, max_seqlen)
    with full_precision(a):
        padded_a = pad(a.to(dtype), cu_seqlens, max_seqlen)
        padded_b = pad(b.to(dtype), cu_seqlens, max_seqlen)
        if isinstance(scale, Tensor):
            # A scale for each segment: its gradient is summed by segment, over few numbers.
            scale = scale.expand(cu_seqlens.shape[0] - 1)[:, None, None]
        logits = (padded_a @ padded_b.mT) * scale
        # The lowest finite number, not -inf: rows of padding then have a finite logsumexp.
        masked = logits.masked_fill(~(mask[:, :, None] & mask[:, None, :]), torch.finfo(dtype).min)
        losses = masked.logsumexp(dim=2) + masked.logsumexp(dim=1) - 2 * logits.diagonal(dim1=1, dim2=2)
        lengths = segment_lengths(cu_seqlens)
        of_report = losses.masked_fill(~mask, 0.0).sum(dim=1) / (2 * lengths.clamp(min=1))
        return of_report.sum() / (lengths > 0).sum().clamp(min=1)


@torch.library.custom_op("prior_fast::segment_info_nce", mutates_args=())
def _segment_info_nce(
    a: Tensor, b: Tensor, scale: Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, and for the backward pass: d loss / d scale, 1 / (number of segments with rows), stats [5, 2, T].

    No gradient flows through the last three. The contrastive kernels of kernels/ define the stats of a row.
    """
    from prior_fast.kernels.segment_info_nce import segment_info_nce_fwd

    return segment_info_nce_fwd(a.contiguous(), b.contiguous(), scale, cu_seqlens.contiguous(), max_seqlen)


@_segment_info_nce.register_fake
def _(
    a: Tensor, b: Tensor, scale: Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    stats = a.new_empty(5, 2, a.shape[0], dtype=torch.float32)
    return stats.new_empty(()), stats.new_empty(()), stats.new_empty(()), stats


@torch.library.custom_op("prior_fast::segment_info_nce_backward", mutates_args=())
def _segment_info_nce_backward(
    dloss: Tensor,
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    cu_seqlens: Tensor,
    slope: Tensor,
    share: Tensor,
    stats: Tensor,
    max_seqlen: int,
) -> tuple[Tensor, Tensor, Tensor]:
    from prior_fast.kernels.segment_info_nce import segment_info_nce_bwd

    a, b, cu_seqlens = a.contiguous(), b.contiguous(), cu_seqlens.contiguous()
    return segment_info_nce_bwd(dloss, a, b, scale, cu_seqlens, slope, share, stats, max_seqlen)


@_segment_info_nce_backward.register_fake
def _(
    dloss: Tensor,
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    cu_seqlens: Tensor,
    slope: Tensor,
    share: Tensor,
    stats: Tensor,
    max_seqlen: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(a.shape), b.new_empty(b.shape), torch.empty_like(scale)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.max_seqlen = inputs
    ctx.save_for_backward(*tensors, *output[1:])


def _backward(ctx: Any, dloss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return *_segment_info_nce_backward(dloss, *ctx.saved_tensors, ctx.max_seqlen), None, None


_segment_info_nce.register_autograd(_backward, setup_context=_setup_context)

# csrc/segment_contrast_cpu.cpp implements both for CPUs, and describes what the first returns besides the loss.
torch.library.define(
    "prior_fast::segment_info_nce_cpp",
    "(Tensor a, Tensor b, Tensor scale, Tensor cu_seqlens, SymInt columns) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "prior_fast::segment_info_nce_cpp_backward",
    "(Tensor dloss, Tensor a, Tensor b, Tensor scale, Tensor cu_seqlens, Tensor slope, Tensor g)"
    " -> (Tensor, Tensor, Tensor)",
)


@torch.library.register_fake("prior_fast::segment_info_nce_cpp")
def _(a: Tensor, b: Tensor, scale: Tensor, cu_seqlens: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    g = a.new_empty(a.shape[0], columns, dtype=torch.float32)
    return g.new_empty(()), g.new_empty(()), g


@torch.library.register_fake("prior_fast::segment_info_nce_cpp_backward")
def _(
    dloss: Tensor, a: Tensor, b: Tensor, scale: Tensor, cu_seqlens: Tensor, slope: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(a.shape), b.new_empty(b.shape), torch.empty_like(scale)


_CPP = torch.ops.prior_fast.segment_info_nce_cpp.default
_CPP_BACKWARD = torch.ops.prior_fast.segment_info_nce_cpp_backward.default


# torch.library.register_autograd would take longer than the kernels of a small batch.
class _SegmentInfoNceCpp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, scale: Tensor, cu_seqlens: Tensor, columns: int) -> Tensor:
        loss, slope, g = _CPP(a, b, scale, cu_seqlens, columns)
        ctx.save_for_backward(a, b, scale, cu_seqlens, slope, g)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        return *_CPP_BACKWARD(dloss, *ctx.saved_tensors), None, None


def _segment_info_nce_cpp(
    a: Tensor, b: Tensor, logit_scale: float | Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> Tensor:
    scale = _as_tensor(logit_scale, a)
    # A row of the gradient of the products for each row, as long as the longest segment, in whole vectors.
    rows = a.shape[0]
    longest = min(max_seqlen, rows) if type(max_seqlen) is type(rows) is int else torch.sym_min(max_seqlen, rows)
    columns = (longest + 15) // 16 * 16
    if wants_gradient(a, b, scale):
        return _SegmentInfoNceCpp.apply(a, b, scale, cu_seqlens, columns)
    return _CPP(a, b, scale, cu_seqlens, columns)[0]


def _as_tensor(logit_scale: float | Tensor, a: Tensor) -> Tensor:
    return logit_scale if isinstance(logit_scale, Tensor) else a.new_full((), logit_scale, dtype=torch.float32)


def _surely_fits(a: Tensor, b: Tensor, logit_scale: float | Tensor, cu_seqlens: Tensor, max_seqlen: int) -> bool:
    """Whether the arguments of a call that "cpp" serves are right; False leaves the decision to the checks."""
    scale_fits = type(logit_scale) is float or (
        type(logit_scale) in (Tensor, Parameter)
        and logit_scale.dtype == torch.float32  # type: ignore[union-attr]
        and logit_scale.is_cpu  # type: ignore[union-attr]
        and logit_scale.dim() == 0  # type: ignore[union-attr]
    )
    return (
        scale_fits
        and a.dim() == 2
        and a.shape == b.shape
        and type(max_seqlen) is int
        and offsets_fit(cu_seqlens, a.shape[0], max_seqlen)
    )


def segment_info_nce(
    a: Tensor,
    b: Tensor,
    logit_scale: float | Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    *,
    backend: str | None = None,
) -> Tensor:
    """`info_nce` within each segment, averaged over segments: each report counts equally, whatever its length.

    Empty segments do not count. A segment of one row contributes exactly 0 with zero gradient.

    Args:
        a: [T, D] packed unit vectors.
        b: [T, D] packed unit vectors of the dtype of `a`; row i belongs to row i of `a`.
        logit_scale: the multiplier itself (already exponentiated), a number or a tensor without dimensions.
        cu_seqlens: [B + 1] int32 (or int64) offsets of the segments in the rows.
        max_seqlen: rows of the longest segment, or more; an int.
        backend: see `prior_fast.ops.common.backend.resolve_backend`.

    Returns:
        [] float32 (float64 for float64), 0 without rows. Differentiable in a, b and logit_scale.

    Raises:
        ValueError: a shape, dtype, device, offset or backend that does not fit; the message names it.
    """
    if surely_serves(backend, a, b) and _surely_fits(a, b, logit_scale, cu_seqlens, max_seqlen):
        return _segment_info_nce_cpp(a, b, logit_scale, cu_seqlens, max_seqlen)
    check_tensors(a=(a, "T D"), b=(b, "T D"))
    check_scalar("logit_scale", logit_scale, "a", a)
    check_offsets("cu_seqlens", cu_seqlens, "a", a, max_name="max_seqlen", max_seqlen=max_seqlen)
    # With gradients in float32, without tensor cores, 128 reports take 416 us on an H200, and 275 us in plain PyTorch
    # with cuBLAS; without gradients 65 and 185 us (bench/results/nvidia-h200/kernels-2.json).
    available = with_cpp(a, with_triton(a, for_float32=not wants_gradient(a, b)))
    chosen = resolve_backend("segment_info_nce", backend, available)
    if chosen == "reference":
        return segment_info_nce_reference(a, b, logit_scale, cu_seqlens, max_seqlen)
    if chosen == "cpp":
        return _segment_info_nce_cpp(a, b, logit_scale, cu_seqlens, max_seqlen)
    return _segment_info_nce(a, b, _as_tensor(logit_scale, a), cu_seqlens, max_seqlen)[0]
