"""The layer norms of BERT's layers, for a batch's tokens and for the sentence decoder's queries."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prior_fast.bench.common.case import Case, Public, Work, batches, size

COLUMNS = 768
# Of PRIOR's 128 reports, or 16 queries for each image.
TOKENS, QUERIES = 90, 16
DROPOUT = 0.1
# The threshold and the factor that the op makes of it.
NUMBERS = round(DROPOUT * 2**24), 1 / (1 - DROPOUT)
EPS = 1e-12


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Forward and backward of the launchers with dropout, for a residual stream in float32.

    Operations: ten for each number forward, twenty backward; the random numbers' are not counted.
    """
    for rows in (128 * TOKENS, 128 * QUERIES):
        given = _inputs(device, dtype, rows, COLUMNS)
        x, residual, *vectors = given
        shape = f"N={rows} C={COLUMNS}"
        low = [x] if x.dtype != residual.dtype else []
        stats = 8 * rows
        moved = size(x, residual, *vectors, residual, *low) + stats
        yield Case("dropout_add_layer_norm", shape, "forward", _forward(*given), moved, 10 * x.numel())
        moved = size(residual, *low, x, residual, *vectors, x, residual, *vectors) + stats
        yield Case("dropout_add_layer_norm", shape, "backward", _backward(*given), moved, 20 * x.numel())


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Every number of warps and pieces, a width of 1, widths divisible by 16 or not.

    At BERT's width also without dropout, without a linear layer's bias, with a residual stream of the dtype of x, and
    with the gradient of each output alone.
    """
    for columns in (1, 32, 50, 100, 180, 256, 390, 1001, 1024, 1536, 3072, 4096):
        given = _inputs(device, dtype, 17, columns)
        yield _forward(*given)
        yield _backward(*given)
    x, residual, weight, bias, linear = _inputs(device, dtype, 17, COLUMNS)
    for stream, added in ((residual, linear), (residual, None), (x, linear)):
        for dropout in (True, False):
            yield _forward(x, stream, weight, bias, added, dropout)
            yield _backward(x, stream, weight, bias, added, dropout)
    if x.dtype != residual.dtype:
        yield _backward(x, residual, weight, bias, linear, outputs=(True, False))
        yield _backward(x, residual, weight, bias, linear, outputs=(False, True))


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """The tokens of a batch without dropout: competitors have no mask of the op's."""
    for reports in batches(small):
        rows = reports if small else reports * TOKENS
        x, residual, *vectors = _inputs(device, dtype, rows, COLUMNS)
        forward = Work(size(x, residual, *vectors, x), 10 * x.numel())
        backward = Work(size(x, x, residual, *vectors), 20 * x.numel())
        both = Work(forward.least_bytes + backward.least_bytes, forward.operations + backward.operations)
        shape = f"B={reports} N={rows} C={COLUMNS}"
        inputs = (x, residual, *vectors)
        yield Public("dropout_add_layer_norm", shape, _low, inputs, forward, both, wanted=(0, 1, 2, 3, 4), at=reports)


def _low(*inputs: Tensor, backend: str | None = None) -> Tensor:
    """The output in the dtype of x."""
    from prior_fast.ops import dropout_add_layer_norm

    return dropout_add_layer_norm(*inputs, backend=backend)[1]


def _inputs(device: torch.device, dtype: torch.dtype, rows: int, columns: int) -> tuple[Any, ...]:
    x = torch.randn(rows, columns, device=device, dtype=dtype)
    return x, torch.randn(rows, columns, device=device), *(torch.randn(columns, device=device) for _ in range(3))


def _forward(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, linear: Tensor | None, dropout: bool = True
) -> Callable[[], object]:
    from prior_fast.kernels.dropout_add_layer_norm import dropout_add_layer_norm_fwd

    seed = torch.ones((), dtype=torch.int64, device=x.device) if dropout else None
    return partial(dropout_add_layer_norm_fwd, x, residual, weight, bias, linear, seed, 3, *NUMBERS, EPS)


def _backward(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    linear: Tensor | None,
    dropout: bool = True,
    outputs: tuple[bool, bool] = (True, True),
) -> Callable[[], object]:
    from prior_fast.kernels.dropout_add_layer_norm import dropout_add_layer_norm_bwd

    seed = torch.ones((), dtype=torch.int64, device=x.device) if dropout else None
    dy = torch.empty_like(residual) if outputs[0] else None
    dlow = torch.empty_like(x) if outputs[1] and x.dtype != residual.dtype else None
    stats = torch.ones(2, x.shape[0], device=x.device)
    return partial(dropout_add_layer_norm_bwd, dy, dlow, x, residual, weight, linear, seed, stats, 3, *NUMBERS)
