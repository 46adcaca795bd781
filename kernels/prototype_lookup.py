"""The Gumbel-softmax lookup in a bank of prototypes: forward; backward is `_prototype_lookup_bwd`.

N rows, K prototypes, D columns; tiles of BLOCK_N x BLOCK_K logits or BLOCK_N x BLOCK_D of rows.

The noisy logits are written once, N K float32, and kept for the backward pass: so it sees the very same noise, and
nothing is recomputed but exponentials. At PRIOR's size they are 2 MB, which stay in a GPU's level-2 cache. The signs
of output - x are kept in a byte each: the backward pass needs neither output, and rounding to bfloat16 hides no sign.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels._bank import SCHEDULE, inverse_temperature, load_logits, load_tile, mean, over_tiles, tiles
from prior_fast.kernels._dot import dot
from prior_fast.kernels._philox import gumbel
from prior_fast.kernels._prototype_lookup_bwd import prototype_lookup_bwd
from prior_fast.kernels.common.launch import launch

__all__ = ["prototype_lookup_bwd", "prototype_lookup_fwd"]


@triton.jit(do_not_specialize=["N", "first_row"])
def _prototype_lookup_fwd_logits_kernel(
    x_ptr,
    bank_ptr,
    gumbel_ptr,
    seed_ptr,
    logits_ptr,
    N,
    K,
    D,
    first_row,
    HAS_GUMBEL: tl.constexpr,
    HAS_SEED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """logits[n, k] = x[n] . bank[k] + noise; a program makes one tile."""
    # The products have a kernel of their own. The mixture's programs hold 64 of 768 columns each, so there all twelve
    # that share a row would make its logits.
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.program_id(1).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    # 32 x 64 sums are 8 registers a thread, 64 x 64 are 16. Only pieces of x and of the bank lie in shared memory.
    logits = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    for first in range(0, D, BLOCK_D):
        d = first + tl.arange(0, BLOCK_D)
        x = load_tile(x_ptr, n, d, N, D)
        bank = load_tile(bank_ptr, k, d, K, D)
        logits = dot(x, tl.trans(bank), logits, PRECISION)
    if HAS_GUMBEL:
        logits += load_tile(gumbel_ptr, n, k, N, K).to(tl.float32)
    if HAS_SEED:
        # Noise is made in registers: no [N, K] of it is written or read. Counters may pass 2**31, so n and k are int64.
        logits += gumbel(tl.load(seed_ptr), (first_row + n[:, None]) * K + k[None, :])
    mask = (n[:, None] < N) & (k[None, :] < K)
    tl.store(logits_ptr + n[:, None] * K + k[None, :], logits, mask=mask)


@triton.jit(do_not_specialize=["N"])
def _prototype_lookup_fwd_kernel(
    logits_ptr,
    x_ptr,
    bank_ptr,
    tau_ptr,
    output_ptr,
    index_ptr,
    sign_ptr,
    stats_ptr,
    parts_ptr,
    N,
    K,
    D,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """output = softmax(logits / tau) bank, the sign of output - x, and the tile's sum of its absolute values.

    The programs of the first columns also write index, and the two rows of stats: a row's greatest logit and its sum
    of exp((logit - greatest) / tau).
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    # A pass for the maximum, then one for the weights. A running maximum would need one pass, but would rescale the
    # mixture at each piece. The logits come from L2 both times: D / 64 = 12 programs a row read some 50 MB for PRIOR.
    greatest = tl.full([BLOCK_N], float("-inf"), tl.float32)
    index = tl.zeros([BLOCK_N], tl.int32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        logits = load_logits(logits_ptr, n, k, N, K)
        tile_greatest = tl.max(logits, axis=1)
        # Of equal logits the first: within a tile by the minimum, between tiles since only a greater one replaces.
        candidates = tl.where(logits == tile_greatest[:, None], k[None, :], K)
        index = tl.where(tile_greatest > greatest, tl.min(candidates, axis=1), index)
        greatest = tl.maximum(greatest, tile_greatest)

    # tau is positive, so the greatest logit is the greatest weight too, and index does not depend on tau.
    scale = inverse_temperature(tau_ptr)
    total = tl.zeros([BLOCK_N], tl.float32)
    mixture = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        weights = tl.exp((load_logits(logits_ptr, n, k, N, K) - greatest[:, None]) * scale)
        total += tl.sum(weights, axis=1)
        bank = load_tile(bank_ptr, k.to(tl.int64), d, K, D)
        # Weights are at most 1 and are rounded for the product alone; total sums them in float32.
        mixture = dot(weights.to(bank.dtype), bank, mixture, PRECISION)
    mixture = mixture / total[:, None]

    mask = (n[:, None] < N) & (d[None, :] < D)
    place = n[:, None] * D + d[None, :]
    # Masked, since rows past the end have the last row's mixture and would count in l1.
    gap = tl.where(mask, mixture - load_tile(x_ptr, n, d, N, D).to(tl.float32), 0.0)
    tl.store(output_ptr + place, mixture, mask=mask)
    tl.store(sign_ptr + place, (gap > 0).to(tl.int8) - (gap < 0).to(tl.int8), mask=mask)
    # A part of l1 for each tile: `mean` adds them in one order, where atomics would add them in any.
    part = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(parts_ptr + part, tl.sum(tl.sum(tl.abs(gap), axis=1), axis=0))
    # Every program of these rows has found the same, so one stores it.
    if tl.program_id(1) == 0:
        tl.store(index_ptr + n, index, mask=n < N)
        tl.store(stats_ptr + n, greatest, mask=n < N)
        tl.store(stats_ptr + N + n, total, mask=n < N)


def prototype_lookup_fwd(
    x: Tensor,
    prototypes: Tensor,
    tau: Tensor,
    gumbel: Tensor | None,
    seed: Tensor | None,
    first_row: int,
    precision: str = "ieee",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x [N, D], prototypes [K, D], gumbel [N, K] or None, contiguous; tau one float, seed one int64 or None.

    Returns output [N, D], index [N] int64 and l1 [] float32, and for the backward pass the noisy logits [N, K]
    float32, the signs of output - x [N, D] int8, and each row's greatest logit and sum of exponentials [2, N] float32.
    """
    (rows, columns), bank_rows = x.shape, prototypes.shape[0]
    sizes = {"N": rows, "K": bank_rows, "D": columns}
    logits = x.new_empty(rows, bank_rows, dtype=torch.float32)
    constants = tiles(sizes, x.dtype, "D", precision)
    launch(
        _prototype_lookup_fwd_logits_kernel,
        over_tiles(sizes, constants, "NK"),
        # An absent tensor's place is taken by another, which is not read.
        {"x_ptr": x, "bank_ptr": prototypes, "gumbel_ptr": x if gumbel is None else gumbel}
        | {"seed_ptr": x if seed is None else seed, "logits_ptr": logits, **sizes, "first_row": first_row},
        constants | {"HAS_GUMBEL": gumbel is not None, "HAS_SEED": seed is not None},
        **SCHEDULE,
    )
    constants = tiles(sizes, x.dtype, "K", precision)
    grid = over_tiles(sizes, constants, "ND")
    output, sign = x.new_empty(rows, columns), x.new_empty(rows, columns, dtype=torch.int8)
    index, stats = x.new_empty(rows, dtype=torch.int64), logits.new_empty(2, rows)
    parts = logits.new_empty(grid)
    launch(
        _prototype_lookup_fwd_kernel,
        grid,
        {"logits_ptr": logits, "x_ptr": x, "bank_ptr": prototypes, "tau_ptr": tau, "output_ptr": output}
        | {"index_ptr": index, "sign_ptr": sign, "stats_ptr": stats, "parts_ptr": parts, **sizes},
        constants,
        **SCHEDULE,
    )
    return output, index, mean(parts, rows * columns), logits, sign, stats
