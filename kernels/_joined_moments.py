"""Mean and variance of columns from those of their parts.

A sum of squares minus the square of a sum loses all digits of a small variance beside a large mean. Here each part has
its own mean and its squared deviations from it, and parts are joined by the formula of Chan, Golub and LeVeque
("Algorithms for computing the sample variance", 1983): deviations of the parts' means are added, weighted by counts.
The order of the additions depends on the sizes alone, so results are the same in every run.
"""

import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels.common.launch import launch

BLOCK_P, BLOCK_N = 64, 32
# Parts that a program joins at least: with fewer, a second launch would read as much as the first one.
LEAST = 256


@triton.jit
def tile_moments(a, b, mask, count):
    """Mean and sum of squared deviations of each column of a and b together; count: their rows inside `mask`."""
    mean = tl.sum(tl.where(mask, a + b, 0.0), axis=0) / count
    da = tl.where(mask, a - mean[None, :], 0.0)
    db = tl.where(mask, b - mean[None, :], 0.0)
    # The mean's rounding error is the mean of the deviations.
    rest = tl.sum(da + db, axis=0) / count
    squares = tl.sum(da * da + db * db, axis=0) - count * rest * rest
    return mean + rest, tl.maximum(squares, 0.0)


@triton.jit(do_not_specialize=["P", "SHARE"])
def _joined_moments_kernel(
    counts_ptr, parts_ptr, joined_counts_ptr, joined_ptr, P, SHARE, N,
    LAST: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Join parts [P, 2, N], SHARE of them in a program; the last launch has one program and leaves the variance."""
    share = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_n = n < N
    begin = share * SHARE
    end = tl.minimum(begin + SHARE, P)
    # All means are near each other, so their distances from one of them are added with more digits.
    pivot = tl.load(parts_ptr + begin * 2 * N + n, mask=mask_n & (begin < P), other=0.0)
    total = tl.zeros([BLOCK_P, BLOCK_N], tl.float32)
    counts = tl.zeros([BLOCK_P], tl.float32)
    for first in range(begin, end, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        count = tl.load(counts_ptr + p, mask=p < end, other=0.0)
        mask = (p < end)[:, None] & mask_n[None, :]
        mean = tl.load(parts_ptr + (p * 2 * N)[:, None] + n[None, :], mask=mask, other=0.0)
        total += tl.where(mask, count[:, None] * (mean - pivot[None, :]), 0.0)
        counts += count
    all_rows = tl.sum(counts, axis=0)
    distance = tl.sum(total, axis=0) / all_rows
    squares = tl.zeros([BLOCK_P, BLOCK_N], tl.float32)
    for first in range(begin, end, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        count = tl.load(counts_ptr + p, mask=p < end, other=0.0)
        mask = (p < end)[:, None] & mask_n[None, :]
        mean = tl.load(parts_ptr + (p * 2 * N)[:, None] + n[None, :], mask=mask, other=0.0)
        own = tl.load(parts_ptr + (p * 2 * N + N)[:, None] + n[None, :], mask=mask, other=0.0)
        off = tl.where(mask, mean - pivot[None, :] - distance[None, :], 0.0)
        squares += own + count[:, None] * off * off
    result = tl.sum(squares, axis=0)
    if LAST:
        result /= all_rows
    tl.store(joined_ptr + share * 2 * N + n, pivot + distance, mask=mask_n)
    tl.store(joined_ptr + share * 2 * N + N + n, result, mask=mask_n)
    tl.store(joined_counts_ptr + share, all_rows)


def join_moments(counts: Tensor, parts: Tensor) -> Tensor:
    """Mean and biased variance [2, N] float32; NaN without any row.

    counts [P] float32: rows of each part; parts [P, 2, N] float32: their means and sums of squared deviations.
    """
    shares = min(64, parts.shape[0] // LEAST)
    if shares > 1:
        counts, parts = _join(counts, parts, shares, last=False)
    return _join(counts, parts, 1, last=True)[1][0]


def _join(counts: Tensor, parts: Tensor, shares: int, last: bool) -> tuple[Tensor, Tensor]:
    number, _, width = parts.shape
    share = triton.cdiv(number, shares)
    # Rounded up, the shares may be fewer.
    shares = max(1, triton.cdiv(number, share)) if share else 1
    joined_counts, joined = counts.new_empty(shares), parts.new_empty(shares, 2, width)
    arguments = {"counts_ptr": counts, "parts_ptr": parts, "joined_counts_ptr": joined_counts, "joined_ptr": joined}
    launch(
        _joined_moments_kernel,
        (triton.cdiv(width, BLOCK_N), shares),
        {**arguments, "P": number, "SHARE": share, "N": width},
        {"LAST": last, "BLOCK_P": BLOCK_P, "BLOCK_N": BLOCK_N},
    )
    return joined_counts, joined
