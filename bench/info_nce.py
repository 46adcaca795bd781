"""The global alignment of a batch of pairs, at PRIOR's batch size and eight times that, and on one rank of eight."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, size


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Forward (both launchers) and backward of 128 pairs, of 1,024 pairs, and of one rank's 128 of 1,024 pairs.

    Operations: a single process needs each product of two vectors once; a rank needs the products of its own rows on
    both sides. The backward pass needs the gradient of each side.
    """
    from prior_fast.ops.info_nce import KEPT_PRODUCTS

    width = 768
    for pairs, rows in ((128, 128), (1024, 1024), (1024, 128)):
        forward, backward, inputs = _both(pairs, rows, width, rows * pairs <= KEPT_PRODUCTS, device, dtype)
        shape = f"B={pairs} D={width}" if rows == pairs else f"B={pairs} D={width}, {rows} of them own"
        products = pairs * pairs if rows == pairs else 2 * rows * pairs
        gradients = 2 * rows * width * dtype.itemsize
        yield Case("info_nce", shape, "forward", forward, size(*inputs), 2 * products * width)
        yield Case("info_nce", shape, "backward", backward, size(*inputs) + gradients, 4 * rows * pairs * width)


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """With and without kept products; widths and numbers of rows that are divisible by 16, not divisible, and 1; the
    scale in float32 and in the vectors' dtype."""
    for keep in (True, False):
        for pairs, rows, width in ((48, 48, 768), (48, 16, 32), (50, 25, 64), (50, 25, 50), (1, 1, 1)):
            for scale_dtype in (torch.float32, dtype):
                yield from _both(pairs, rows, width, keep, device, dtype, scale_dtype)[:2]


def _both(
    pairs: int,
    rows: int,
    width: int,
    keep: bool,
    device: torch.device,
    dtype: torch.dtype,
    scale_dtype: torch.dtype = torch.float32,
) -> tuple[Callable[[], object], Callable[[], object], tuple[torch.Tensor, ...]]:
    """Forward and backward of the last `rows` of `pairs` rows, and the tensors that both read."""
    from prior_fast.kernels.info_nce import info_nce_bwd, info_nce_fwd, info_nce_total

    a, b = (torch.nn.functional.normalize(torch.randn(pairs, width, device=device), dim=1).to(dtype) for _ in "ab")
    scale = torch.full((), 14.0, device=device, dtype=scale_dtype)
    # Stand-ins for what the forward pass returns and ranks exchange: the slope, statistics of all rows, the products.
    one, stats = torch.ones((), device=device), torch.full((5, 2, pairs), 0.5, device=device)
    kept = torch.zeros(2 if keep else 0, rows, pairs, device=device)
    begin = pairs - rows

    def forward() -> None:
        info_nce_fwd(a, b, scale, begin, rows, keep)
        info_nce_total(stats)

    return forward, partial(info_nce_bwd, one, a, b, scale, stats, one, kept, begin), (a, b, scale)


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """The global alignment of a batch. Operations: each product of two vectors once; backward, each side's gradient."""
    from prior_fast.ops import info_nce

    width = 768
    for pairs in batches(small):
        a, b = (torch.nn.functional.normalize(torch.randn(pairs, width, device=device), dim=1).to(dtype) for _ in "ab")
        scale = torch.full((), 14.0, device=device)
        product, loss = 2 * pairs * pairs * width, 4
        forward = Work(size(a, b, scale) + loss, product)
        both = Work(2 * (size(a, b, scale) + loss), 3 * product)
        shape = f"B={pairs} D={width}"
        yield Public("info_nce", shape, info_nce, (a, b, scale), forward, both, wanted=(0, 1, 2), at=pairs)
