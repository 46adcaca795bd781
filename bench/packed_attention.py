"""The text encoder's attention over reports of some 90 tokens, and the sentence decoder's over 16 queries."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, offsets, size

HEADS, WIDTH = 12, 64
QUERIES, PATCHES = 16, 49
DROPOUT = 0.1


def token_counts(reports: int) -> list[int]:
    """Tokens of each report: 10 to 250, 90 on average, with few long ones."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(reports, generator=generator) * 0.5 + 4.37).exp().clamp(10, 250).int().tolist()


def calls(reports: int) -> tuple[tuple[str, list[int], list[int], float], ...]:
    """Name, lengths of queries and keys, and dropout of the calls of a training step."""
    tokens, queries = token_counts(reports), [QUERIES] * reports
    return (
        ("text encoder", tokens, tokens, 0.0),
        ("decoder, self", queries, queries, DROPOUT),
        ("decoder, cross", queries, [PATCHES] * reports, DROPOUT),
    )


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Forward and backward of the launchers."""
    for reports in (128, 1024):
        for name, lengths_q, lengths_k, dropout in calls(reports):
            yield from _both(name, lengths_q, lengths_k, HEADS, WIDTH, dropout, False, device, dtype)


def _both(
    name: str,
    lengths_q: list[int],
    lengths_k: list[int],
    heads: int,
    width: int,
    dropout: float,
    causal: bool,
    device: torch.device,
    dtype: torch.dtype,
    offset_dtype: torch.dtype = torch.int32,
) -> Iterator[Case]:
    from prior_fast.kernels.packed_attention import packed_attention_bwd, packed_attention_fwd

    rows_q, rows_k = sum(lengths_q), sum(lengths_k)
    joined_q, joined_k = (torch.randn(rows, 3, heads, width, device=device, dtype=dtype) for rows in (rows_q, rows_k))
    q, k, v = joined_q[:, 0], joined_k[:, 1], joined_k[:, 2]
    out = torch.randn(rows_q, heads, width, device=device, dtype=dtype)
    lse = torch.ones(rows_q, heads, device=device)
    sizes = offsets(lengths_q, device).to(offset_dtype), offsets(lengths_k, device).to(offset_dtype)
    seed = torch.ones((), dtype=torch.int64, device=device) if dropout else None
    options: Any = (max(lengths_q), max(lengths_k), width**-0.5, dropout, causal)
    # Forward: a product for the scores and one for the output. Backward: the scores again, the gradients of the
    # weights, dq, dk and dv.
    product = 2 * heads * width * sum(a * b for a, b in zip(lengths_q, lengths_k, strict=True))
    shape = f"{name} B={len(lengths_q)} Tq={rows_q} Tk={rows_k} H={heads} D={width}"
    yield Case(
        "packed_attention",
        shape,
        "forward",
        partial(packed_attention_fwd, q, k, v, *sizes, seed, *options),
        size(q, k, v, out, *sizes),
        2 * product,
    )
    gradients = joined_q[:, 0], joined_k[:, 1], joined_k[:, 2]
    yield Case(
        "packed_attention",
        shape,
        "backward",
        partial(packed_attention_bwd, out, q, k, v, out, lse, *sizes, seed, *gradients, *options),
        size(out, q, k, v, out, lse, *gradients, *sizes),
        5 * product,
    )


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """One or several tiles of queries, of keys and of both; every BLOCK_D; widths that are no multiple of 16; options.

    Segments above 64 rows take the backward kernel whose programs have a tile each.
    """
    for lengths_q, lengths_k, heads, width, dropout, causal in (
        ([3, 1], [2, 5], 1, 16, 0.0, False),
        ([9, 3], [40, 5], 3, 33, 0.1, True),
        ([16], [16], 12, 64, 0.0, True),
        ([16], [16], 2, 128, 0.1, True),
        ([30], [20], 2, 64, 0.1, False),
        ([30], [60], 2, 64, 0.1, False),
        ([100], [9], 2, 112, 0.1, False),
        ([100], [100], 12, 64, 0.1, True),
        ([100], [130], 2, 128, 0.1, True),
        ([300], [300], 12, 64, 0.1, True),
        ([300], [300], 2, 128, 0.1, True),
        ([300], [20], 2, 100, 0.1, True),
    ):
        for case in _both("", lengths_q, lengths_k, heads, width, dropout, causal, device, dtype):
            yield case.run
    for case in _both("", [9, 70], [70, 9], 12, 64, 0.0, False, device, dtype, torch.int64):
        yield case.run


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """The calls of a step at several batch sizes, and reports of equal length."""
    for reports in batches(small):
        for name, lengths_q, lengths_k, dropout in calls(reports):
            yield _public(name, lengths_q, lengths_k, dropout, "batch", reports, device, dtype)
    reports = batches(small)[0]
    for each in (32, 64) if small else (64, 128, 256, 512):
        yield _public("equal reports", [each] * reports, [each] * reports, 0.0, "tokens", each, device, dtype)


def _public(
    name: str,
    lengths_q: list[int],
    lengths_k: list[int],
    dropout: float,
    axis: str,
    at: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Public:
    from prior_fast.ops import packed_attention

    rows_q, rows_k = sum(lengths_q), sum(lengths_k)
    q, k, v = (torch.randn(rows, HEADS, WIDTH, device=device, dtype=dtype) for rows in (rows_q, rows_k, rows_k))
    cu_q, cu_k = offsets(lengths_q, device), offsets(lengths_k, device)
    product = 2 * HEADS * WIDTH * sum(a * b for a, b in zip(lengths_q, lengths_k, strict=True))
    # torch's own attention takes segments of equal length without padding; its dropped weights are others.
    equal = len(set(lengths_q)) == len(set(lengths_k)) == 1 and not dropout
    return Public(
        "packed_attention",
        f"{name} B={len(lengths_q)} Tq={rows_q} Tk={rows_k} H={HEADS} D={WIDTH}",
        partial(
            packed_attention,
            max_seqlen_q=max(lengths_q),
            max_seqlen_k=max(lengths_k),
            dropout=dropout,
            seed=7 if dropout else None,
        ),
        (q, k, v, cu_q, cu_k),
        Work(size(q, k, v, q, cu_q, cu_k), 2 * product),
        Work(2 * size(q, k, v, q) + size(cu_q, cu_k), 6 * product),
        wanted=(0, 1, 2),
        axis=axis,
        at=at,
        others={"scaled_dot_product_attention": partial(_dense, len(lengths_q))} if equal else {},
    )


def _dense(segments: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    """torch's attention for segments of equal length, [T, H, D] viewed as [B, H, L, D]."""
    split = (x.unflatten(0, (segments, -1)).transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(0, 1)
