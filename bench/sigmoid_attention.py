"""Both directions of the local alignment, and the report pool, at PRIOR's batch size and eight times that."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, offsets, report_lengths, size

PATCHES = 49
POOL_HEADS = 8  # of the report pool; each head is a query over the whole width (prior_fast/model/pooling.py)


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Forward and backward of the launchers."""
    for reports in (128, 1024):
        sentences = report_lengths(reports)
        patches = [PATCHES] * reports
        with_mean = [n + 1 for n in sentences]
        for name, lengths_q, lengths_k, heads, width, activation in (
            ("text<-image", sentences, patches, 1, 768, "sigmoid"),
            ("image<-text", patches, sentences, 1, 768, "sigmoid"),
            ("report pool", [POOL_HEADS] * reports, with_mean, 1, 768, "softmax"),
        ):
            yield from _both(name, lengths_q, lengths_k, heads, width, activation, device, dtype)


def _both(
    name: str,
    lengths_q: list[int],
    lengths_k: list[int],
    heads: int,
    width: int,
    activation: str,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[Case]:
    from prior_fast.kernels.sigmoid_attention import sigmoid_attention_bwd, sigmoid_attention_fwd

    def randn(rows: int) -> torch.Tensor:
        return torch.randn(rows, heads, width, device=device, dtype=dtype)

    rows_q, rows_k = sum(lengths_q), sum(lengths_k)
    q, dout, k, v = randn(rows_q), randn(rows_q), randn(rows_k), randn(rows_k)
    cu_q, cu_k = offsets(lengths_q, device), offsets(lengths_k, device)
    options = cu_q, cu_k, max(lengths_q), max(lengths_k), width**-0.5, 0.0, activation
    softmax = activation == "softmax"
    out, stats = (q, torch.ones(rows_q, heads, 2, device=device)) if softmax else (None, None)
    # The forward pass takes, for each weight, a product of D columns for the score and one for the output. The backward
    # pass computes the score again and takes four more products (the weights' gradient, dq, dk and dv).
    product = 2 * heads * width * sum(a * b for a, b in zip(lengths_q, lengths_k, strict=True))
    shape = f"{name} B={len(lengths_q)} Tq={rows_q} Tk={rows_k} H={heads} D={width}"
    yield Case(
        "sigmoid_attention",
        shape,
        "forward",
        partial(sigmoid_attention_fwd, q, k, v, *options),
        size(q, k, v, q, cu_q, cu_k),
        2 * product,
    )
    yield Case(
        "sigmoid_attention",
        shape,
        "backward",
        partial(sigmoid_attention_bwd, dout, q, k, v, out, stats, *options),
        size(dout, q, k, v, q, k, v, cu_q, cu_k),
        5 * product,
    )


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """One or several tiles of queries, of keys and of both; widths divisible by 16 or not; both activations."""
    for lengths_q, lengths_k, heads, width in (
        ([3, 1], [2, 5], 2, 8),
        ([49], [40], 1, 768),
        ([49], [16], 1, 1024),
        ([20], [49], 1, 768),
        ([8], [49], 2, 33),
        ([100], [100], 1, 768),
        ([100], [3], 2, 33),
        ([3], [100], 1, 1024),
    ):
        for activation in ("sigmoid", "softmax"):
            for case in _both("", lengths_q, lengths_k, heads, width, activation, device, dtype):
                yield case.run


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """Both directions at several batch sizes; reports of equal length; other widths; and the report pool, a softmax.

    The report pool has reports of equal length, which torch's own attention takes without padding.
    """
    make = partial(_public, device=device, dtype=dtype)
    first = batches(small)[0]
    for reports in batches(small):
        sentences, patches = report_lengths(reports), [PATCHES] * reports
        yield make("text<-image", sentences, patches, 1, 768, "sigmoid", "batch", reports)
        yield make("image<-text", patches, sentences, 1, 768, "sigmoid", "batch", reports)
        yield make("report pool", [POOL_HEADS] * reports, [9] * reports, 1, 768, "softmax", "batch", reports)
    for each in (4, 16, 32):
        yield make("text<-image", [each] * first, [PATCHES] * first, 1, 768, "sigmoid", "sentences", each)
    for width in (64, 256, 1024):
        yield make("text<-image", report_lengths(first), [PATCHES] * first, 1, width, "sigmoid", "head dim", width)


def _public(
    name: str,
    lengths_q: list[int],
    lengths_k: list[int],
    heads: int,
    width: int,
    activation: str,
    axis: str,
    at: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Public:
    from prior_fast.ops import sigmoid_attention

    rows_q, rows_k = sum(lengths_q), sum(lengths_k)
    q, k, v = (torch.randn(rows, heads, width, device=device, dtype=dtype) for rows in (rows_q, rows_k, rows_k))
    cu_q, cu_k = offsets(lengths_q, device), offsets(lengths_k, device)
    # A product for the score and one for the output. Backward: one for each of the weights' gradient, dq, dk and dv.
    product = 2 * heads * width * sum(a * b for a, b in zip(lengths_q, lengths_k, strict=True))
    return Public(
        "sigmoid_attention",
        f"{name} B={len(lengths_q)} Tq={rows_q} Tk={rows_k} H={heads} D={width}",
        partial(sigmoid_attention, max_seqlen_q=max(lengths_q), max_seqlen_k=max(lengths_k), activation=activation),
        (q, k, v, cu_q, cu_k),
        Work(size(q, k, v, q, cu_q, cu_k), 2 * product),
        Work(2 * size(q, k, v, q) + size(cu_q, cu_k), 6 * product),
        wanted=(0, 1, 2),
        axis=axis,
        at=at,
        others={"scaled_dot_product_attention": partial(_dense, len(lengths_q))} if activation == "softmax" else {},
    )


def _dense(segments: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    """torch's attention for segments of equal length, [T, H, D] viewed as [B, H, L, D]."""
    split = (x.unflatten(0, (segments, -1)).transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(0, 1)
