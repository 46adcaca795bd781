"""Softmax attention within each packed report, for CPUs.

Padding to the longest report would compute scores for B L_max^2 pairs of tokens. For reports with 90 tokens on average
that is two to four times the number of pairs within reports. Reports of similar lengths are therefore taken together
and padded to the longest of them. Products for each report alone take 1.4 times as long.
Letters in shapes: T tokens, H heads, D width of a head, B reports, N reports of a group, L tokens of its longest
report.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

# Pairs of tokens of a group, N L^2: its scores stay in a core's cache.
PAIRS = 1 << 16


@dataclass(frozen=True)
class _Group:
    """Reports that are padded to one length.

    Attributes:
        count: N.
        rows: [N L] int64, the rows of their tokens; padding has a row of the same report.
        padding: [N L] bool; None if there is none.
        places: int64, where in the N L the tokens are.
        tokens: int64, their rows.
    """

    count: int
    rows: Tensor
    padding: Tensor | None
    places: Tensor
    tokens: Tensor

    def take(self, x: Tensor, zeros: bool = False) -> Tensor:
        """[H, T, D] -> [H N, L, D]; zeros: padding is zero instead of a copy of a row."""
        taken = x.index_select(1, self.rows)
        if zeros and self.padding is not None:
            taken.masked_fill_(self.padding[:, None], 0)
        return taken.view(x.shape[0] * self.count, -1, x.shape[2])

    def put(self, x: Tensor, into: Tensor) -> None:
        """Write x [H N, L, D] to the rows of `into` [H, T, D], without the padding."""
        x = x.view(into.shape[0], -1, into.shape[2])
        into.index_copy_(1, self.tokens, x if self.padding is None else x.index_select(1, self.places))

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """The weights [H N, L, L] of keys [H N, L, D], from scaled queries; zero for keys that are padding."""
        scores = q @ k.transpose(1, 2)
        if self.padding is not None:
            by_report = scores.view(-1, self.count, *scores.shape[1:])
            by_report.masked_fill_(self.padding.view(self.count, 1, -1), -torch.inf)
        return scores.softmax(dim=2)


@torch.library.custom_op("prior_fast::report_attention", mutates_args=(), device_types="cpu")
def _report_attention(q: Tensor, k: Tensor, v: Tensor, cu_tokens: Tensor, scale: float) -> Tensor:
    q, k, v = _by_head(q * scale, k, v)
    out = torch.zeros_like(v)
    for group in _groups(cu_tokens):
        group.put(group.weights(group.take(q), group.take(k)) @ group.take(v), out)
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
    for group in _groups(cu_tokens):
        queries, keys, values, own = group.take(q), group.take(k), group.take(v), group.take(dout, zeros=True)
        # Recomputed: kept from the forward pass, the weights would be the largest tensors of the encoder.
        weights = group.weights(queries, keys)
        group.put(weights.transpose(1, 2) @ own, dv)
        dweights = own @ values.transpose(1, 2)
        dscores = torch.ops.aten._softmax_backward_data(dweights, weights, 2, weights.dtype)
        group.put(dscores @ keys, dq)
        group.put(dscores.transpose(1, 2) @ queries, dk)
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


def _groups(cu_tokens: Tensor) -> Iterator[_Group]:
    """The reports by their length, those without tokens left out."""
    lengths = cu_tokens.diff().long()
    order = lengths.argsort(stable=True)
    sorted_lengths = lengths[order].tolist()
    last = len(sorted_lengths)
    # From the longest: the length of a group is then known at its first report.
    while last and (longest := sorted_lengths[last - 1]):
        first = max(last - max(PAIRS // longest**2, 1), 0)
        while not sorted_lengths[first]:
            first += 1
        own, equal = order[first:last], sorted_lengths[first] == longest
        yield _group(cu_tokens[:-1].long()[own], lengths[own], longest, equal)
        last = first


def _group(begin: Tensor, lengths: Tensor, longest: int, equal: bool) -> _Group:
    """The group of the reports at rows `begin` [N] with `lengths` [N]; equal: no length is less than `longest`."""
    place = torch.arange(longest)
    rows = (begin[:, None] + torch.minimum(place, lengths[:, None] - 1)).flatten()
    if equal:
        return _Group(len(begin), rows, None, rows, rows)
    padding = (place >= lengths[:, None]).flatten()
    places = torch.from_numpy(np.flatnonzero(~padding.numpy()))
    return _Group(len(begin), rows, padding, places, rows[places])
