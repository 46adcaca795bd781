"""Softmax attention within each packed report, for CPUs.

Padding to the longest report would make scores for B L_max^2 pairs of tokens; of reports with 90 tokens in the mean
that is four times the pairs there are. A report is a loop's step here, since a CPU's work has no launches to save.
Letters in shapes: T tokens, H heads, D width of a head, B reports.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("prior_fast::report_attention", mutates_args=(), device_types="cpu")
def _report_attention(q: Tensor, k: Tensor, v: Tensor, cu_tokens: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    out, log_sums = torch.zeros_like(v), q.new_zeros(q.shape[:2], dtype=_wide(q))
    for rows in _reports(cu_tokens):
        scores = _scores(q, k, rows, scale)
        log_sum = scores.logsumexp(dim=2)
        weights = scores.sub_(log_sum[:, :, None]).exp_().to(v.dtype)
        out[rows] = (weights @ v[rows].transpose(0, 1)).transpose(0, 1)
        log_sums[rows] = log_sum.T
    return out, log_sums


@_report_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, cu_tokens: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v), q.new_empty(q.shape[:2], dtype=_wide(q))


@torch.library.custom_op("prior_fast::report_attention_backward", mutates_args=(), device_types="cpu")
def _report_attention_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    log_sums: Tensor,
    cu_tokens: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    # sum_j p_ij dp_ij of the softmax's gradient, without making p or dp.
    inner = (dout.to(log_sums.dtype) * out).sum(dim=2)
    for rows in _reports(cu_tokens):
        weights = _scores(q, k, rows, scale).sub_(log_sums[rows].T[:, :, None]).exp_()
        own, key, value, query = (x[rows].transpose(0, 1) for x in (dout, k, v, q))
        dv[rows] = (weights.to(own.dtype).transpose(1, 2) @ own).transpose(0, 1)
        dscores = (own @ value.transpose(1, 2)).to(weights.dtype).sub_(inner[rows].T[:, :, None])
        dscores = dscores.mul_(weights).mul_(scale).to(q.dtype)
        dq[rows] = (dscores @ key).transpose(0, 1)
        dk[rows] = (dscores.transpose(1, 2) @ query).transpose(0, 1)
    return dq, dk, dv


@_report_attention_backward.register_fake
def _(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    log_sums: Tensor,
    cu_tokens: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_tokens, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, cu_tokens)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *saved, cu_tokens = ctx.saved_tensors
    return *_report_attention_backward(dout, *saved, cu_tokens, ctx.scale), None, None


_report_attention.register_autograd(_backward, setup_context=_setup_context)


def report_attention(q: Tensor, k: Tensor, v: Tensor, cu_tokens: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v over the keys of a query's own report.

    Args:
        q, k, v: [T, H, D] on a CPU, of one dtype; scores are float32 or wider.
        cu_tokens: [B + 1] int32 offsets of the reports in the tokens.

    Returns:
        [T, H, D]; zeros at tokens behind the last report. Differentiable in q, k, v.
    """
    return _report_attention(q, k, v, cu_tokens, scale)[0]


def _reports(cu_tokens: Tensor) -> Iterator[slice]:
    bounds = cu_tokens.tolist()
    return (slice(begin, end) for begin, end in pairwise(bounds) if end > begin)


def _scores(q: Tensor, k: Tensor, rows: slice, scale: float) -> Tensor:
    """[H, L, L] of the report at `rows`."""
    return (q[rows].transpose(0, 1) @ k[rows].permute(1, 2, 0)).to(_wide(q)).mul_(scale)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
