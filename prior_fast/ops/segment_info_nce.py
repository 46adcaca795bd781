"""Symmetric InfoNCE within each report: PRIOR's local alignment of sentences."""

import torch
from torch import Tensor

from prior_fast.ops._backend import resolve_backend
from prior_fast.ops._checks import check_offsets, check_scalar, check_tensors
from prior_fast.ops._precision import accumulation_dtype, full_precision
from prior_fast.ops._segments import pad, padding_mask, segment_lengths

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
        logits = (padded_a @ padded_b.mT) * scale
        # The lowest finite number, not -inf: rows of padding then have a finite logsumexp.
        masked = logits.masked_fill(~(mask[:, :, None] & mask[:, None, :]), torch.finfo(dtype).min)
        losses = masked.logsumexp(dim=2) + masked.logsumexp(dim=1) - 2 * logits.diagonal(dim1=1, dim2=2)
        lengths = segment_lengths(cu_seqlens)
        of_report = losses.masked_fill(~mask, 0.0).sum(dim=1) / (2 * lengths.clamp(min=1))
        return of_report.sum() / (lengths > 0).sum().clamp(min=1)


def segment_info_nce(
    a: Tensor,
    b: Tensor,
    logit_scale: float | Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    *,
    backend: str | None = None,
) -> Tensor:
    """`info_nce` within each segment, and the mean over segments: each report counts equally, however long.

    Only segments with rows are counted: an empty one changes nothing. A segment of one row contributes exactly 0 with
    zero gradient.

    Args:
        a: [T, D] packed unit vectors.
        b: [T, D] packed unit vectors of the dtype of `a`; row i belongs to row i of `a`.
        logit_scale: the multiplier itself (already exponentiated), a number or a tensor without dimensions.
        cu_seqlens: [B + 1] int32 (or int64) offsets of the segments in the rows.
        max_seqlen: rows of the longest segment, or more; an int.
        backend: see `prior_fast.ops._backend.resolve_backend`.

    Returns:
        [] float32 (float64 for float64), 0 without rows. Differentiable in a, b and logit_scale.

    Raises:
        ValueError: a shape, dtype, device, offset or backend that does not fit; the message names it.
    """
    check_tensors(a=(a, "T D"), b=(b, "T D"))
    check_scalar("logit_scale", logit_scale, "a", a)
    check_offsets("cu_seqlens", cu_seqlens, "a", a, max_name="max_seqlen", max_seqlen=max_seqlen)
    resolve_backend("segment_info_nce", backend, {"reference": None})
    return segment_info_nce_reference(a, b, logit_scale, cu_seqlens, max_seqlen)
