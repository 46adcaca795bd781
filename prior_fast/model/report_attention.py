"""Softmax attention within each packed report, for CPUs.

Padding to the longest report would compute scores for B L_max^2 pairs of tokens. For reports with 90 tokens on average
that is two to four times the number of pairs within reports. The code loops over reports, since a CPU has no launch
cost to save. Letters in shapes: T tokens, H heads, D width of a head, B reports.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula


@torch.library.custom_op("prior_fast::report_attention", mutates_args=(), device_types="cpu")
def _report_attention(q: Tensor, k: Tensor, v: Tensor, cu_tokens: Tensor, scale: float) -> Tensor:
    q, k, v = _by_head(q * scale, k, v)
    out = torch.zeros_like(v)
    for rows in _reports(cu_tokens):
        out[:, rows] = _weights(q, k, rows) @ v[:, rows]
    return out.transpose(0, 1).contiguous()


@_report_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, cu_tokens: Tensor, scale: float) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@torch.library.custom_op("prior_fast::report_attention_backward", mutates_args=(), device_types="cpu")
def _report_attention_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, cu_tokens: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    dout, q, k, v = _by_head(dout, q * scale, k, v)
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for rows in _reports(cu_tokens):
        # Recomputed: kept from the forward pass, the weights would be the largest tensors of the encoder.
        weights, own = _weights(q, k, rows), dout[:, rows]
        dv[:, rows] = weights.transpose(1, 2) @ own
        dweights = own @ v[:, rows].transpose(1, 2)
        dscores = torch.ops.aten._softmax_backward_data(dweights, weights, 2, weights.dtype)
        dq[:, rows] = dscores @ k[:, rows]
        dk[:, rows] = dscores.transpose(1, 2) @ q[:, rows]
    dq, dk, dv = (x.transpose(0, 1).contiguous() for x in (dq.mul_(scale), dk, dv))
    return dq, dk, dv


@_report_attention_backward.register_fake
def _(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, cu_tokens: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    return dq, dk, dv


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    return *_report_attention_backward(dout, *ctx.saved_tensors, ctx.scale), None, None


_report_attention.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.prior_fast.report_attention, get_raw=True)
def _forward_operations(q: Tensor, k: Tensor, v: Tensor, cu_tokens: Tensor, *args: Any, **kwargs: Any) -> int:
    """The operations of both products, for torch's FlopCounterMode, which does not see inside a custom op."""
    return 4 * q.shape[1] * q.shape[2] * int(cu_tokens.diff().long().square().sum())


@register_flop_formula(torch.ops.prior_fast.report_attention_backward, get_raw=True)
def _backward_operations(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, cu_tokens: Tensor, *args: Any, **kwargs: Any
) -> int:
    """The operations of five products, including the recomputed scores."""
    return 10 * q.shape[1] * q.shape[2] * int(cu_tokens.diff().long().square().sum())


def report_attention(q: Tensor, k: Tensor, v: Tensor, cu_tokens: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v over the keys of a query's own report.

    Args:
        q, k, v: [T, H, D] on a CPU, of one dtype.
        cu_tokens: [B + 1] int32 offsets of the reports in the tokens.

    Returns:
        [T, H, D]; zeros for tokens after the last report. Differentiable in q, k, v.
    """
    return _report_attention(q, k, v, cu_tokens, scale)


def _by_head(*tensors: Tensor) -> list[Tensor]:
    """[T, H, D] -> [H, T, D], whose slices matrix products take without a copy."""
    return [x.transpose(0, 1).contiguous() for x in tensors]


def _reports(cu_tokens: Tensor) -> Iterator[slice]:
    bounds = cu_tokens.tolist()
    return (slice(begin, end) for begin, end in pairwise(bounds) if end > begin)


def _weights(q: Tensor, k: Tensor, rows: slice) -> Tensor:
    """[H, L, L] of the report at `rows`."""
    return (q[:, rows] @ k[:, rows].transpose(1, 2)).softmax(dim=2)
