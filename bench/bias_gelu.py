"""The GELU of BERT's feed-forward network, for a batch's tokens and for the sentence decoder's queries."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, size

COLUMNS = 3072
# Of PRIOR's 128 reports, or 16 queries for each image.
TOKENS, QUERIES = 90, 16


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Forward and backward of the launchers. Operations: five a number with the error function as one; backward, ten."""
    from prior_fast.kernels.bias_gelu import bias_gelu_bwd, bias_gelu_fwd

    for rows in (128 * TOKENS, 128 * QUERIES):
        x, bias = _inputs(device, dtype, rows, COLUMNS)
        shape = f"N={rows} C={COLUMNS}"
        forward, backward = partial(bias_gelu_fwd, x, bias), partial(bias_gelu_bwd, torch.empty_like(x), x, bias)
        yield Case("bias_gelu", shape, "forward", forward, size(x, bias, x), 5 * x.numel())
        yield Case("bias_gelu", shape, "backward", backward, size(x, x, x, bias, bias), 10 * x.numel())


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Every block: a width of 1 (a constant to Triton), widths divisible by 16 or not; with and without a bias."""
    from prior_fast.kernels.bias_gelu import bias_gelu_bwd, bias_gelu_fwd

    for columns in (1, 32, 50, 64, 100, 128, 200, 256, 1001, COLUMNS):
        x, bias = _inputs(device, dtype, 17, columns)
        for given in (bias, None) if columns in (1, 100, COLUMNS) else (bias,):
            yield partial(bias_gelu_fwd, x, given)
            yield partial(bias_gelu_bwd, x, x, given)


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """The tokens of a batch."""
    from prior_fast.ops import bias_gelu

    for reports in batches(small):
        rows, columns = (reports, 768) if small else (reports * TOKENS, COLUMNS)
        x, bias = _inputs(device, dtype, rows, columns)
        forward = Work(size(x, bias, x), 5 * x.numel())
        both = Work(size(x, bias, x) + size(x, x, x, bias, bias), 15 * x.numel())
        shape = f"B={reports} N={rows} C={columns}"
        yield Public("bias_gelu", shape, bias_gelu, (x, bias), forward, both, wanted=(0, 1), at=reports)


def _inputs(device: torch.device, dtype: torch.dtype, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, columns, device=device, dtype=dtype), torch.randn(columns, device=device)
