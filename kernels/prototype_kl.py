"""The divergence of two distributions over a bank of prototypes, forward and backward.

N rows, K prototypes, D columns; tiles of BLOCK_N x BLOCK_K logits, BLOCK_N x BLOCK_D of rows or BLOCK_K x BLOCK_D of
the bank. A program serves both sides, so the bank is read once for them.

The logits of both sides are written once, 2 N K float32, and kept for the backward pass, with five numbers of each row
(`stats`): of each side the greatest logit and the logarithm of the sum of exp(logit - greatest), and the divergence.

The backward pass is where the time goes: an H200 takes 35 us forward and 199 both ways for 1,034 rows in bfloat16, 107
and 1,494 for 8,802, where plain PyTorch takes 1,269 both ways (docs/h200.md). These times are from before the bank's
gradient was summed in parts of the rows (`_row_parts`), which is not measured yet.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels._bank import SCHEDULE, gradient_dot, load_logits, load_tile, mean, over_tiles, tiles
from prior_fast.kernels._dot import dot
from prior_fast.kernels._row_parts import launch_by_parts, rows_of_part
from prior_fast.kernels.common.launch import launch


@triton.jit(do_not_specialize=["N"])
def _prototype_kl_fwd_logits_kernel(
    target_ptr,
    prediction_ptr,
    bank_ptr,
    logits_ptr,
    N,
    K,
    D,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """logits[0] = target bank^T, logits[1] = prediction bank^T; a program makes one tile of each."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.program_id(1).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    # Both sides in one program load the bank once. Two accumulators cost registers: 64 x 64 in bfloat16 takes 227 a
    # thread where 16 does not divide the bank's sides, and 122 in prototype_lookup, which has one (Triton 3.8, sm_80).
    of_target = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    of_prediction = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    for first in range(0, D, BLOCK_D):
        d = first + tl.arange(0, BLOCK_D)
        bank = tl.trans(load_tile(bank_ptr, k, d, K, D))
        of_target = dot(load_tile(target_ptr, n, d, N, D), bank, of_target, PRECISION)
        of_prediction = dot(load_tile(prediction_ptr, n, d, N, D), bank, of_prediction, PRECISION)
    place = n[:, None] * K + k[None, :]
    mask = (n[:, None] < N) & (k[None, :] < K)
    tl.store(logits_ptr + place, of_target, mask=mask)
    tl.store(logits_ptr + N.to(tl.int64) * K + place, of_prediction, mask=mask)


@triton.jit(do_not_specialize=["N"])
def _prototype_kl_fwd_kernel(logits_ptr, stats_ptr, N, K, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """stats of BLOCK_N rows from their logits."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = N.to(tl.int64)
    prediction_ptr = logits_ptr + rows * K
    # Maxima of whole tiles, reduced after the loop: some versions of Triton fail on the reduction of a load within one.
    tile_t = tl.full([BLOCK_N, BLOCK_K], float("-inf"), tl.float32)
    tile_p = tl.full([BLOCK_N, BLOCK_K], float("-inf"), tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        tile_t = tl.maximum(tile_t, load_logits(logits_ptr, n, k, N, K))
        tile_p = tl.maximum(tile_p, load_logits(prediction_ptr, n, k, N, K))
    greatest_t, greatest_p = tl.max(tile_t, axis=1), tl.max(tile_p, axis=1)
    total_t = tl.zeros([BLOCK_N], tl.float32)
    total_p = tl.zeros([BLOCK_N], tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        total_t += tl.sum(tl.exp(load_logits(logits_ptr, n, k, N, K) - greatest_t[:, None]), axis=1)
        total_p += tl.sum(tl.exp(load_logits(prediction_ptr, n, k, N, K) - greatest_p[:, None]), axis=1)
    # Three passes over the logits, the last for the divergence. Both sides are 4.2 MB at N = 1,034, which L2 holds.
    log_t, log_p = tl.log(total_t), tl.log(total_p)
    divergence = tl.zeros([BLOCK_N], tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        log_target = load_logits(logits_ptr, n, k, N, K) - greatest_t[:, None] - log_t[:, None]
        log_prediction = load_logits(prediction_ptr, n, k, N, K) - greatest_p[:, None] - log_p[:, None]
        target = tl.exp(log_target)
        # The difference of the probabilities sums to 0. With it no term is negative, and the rounding of log_t and
        # log_p, which is in all terms alike and would hide the divergence of near distributions, cancels.
        terms = target * (log_target - log_prediction) - (target - tl.exp(log_prediction))
        # Past the last prototype both logarithms are minus infinity, and their difference is no number.
        divergence += tl.sum(tl.where(k[None, :] < K, terms, 0.0), axis=1)
    tl.store(stats_ptr + n, greatest_t, mask=n < N)
    tl.store(stats_ptr + rows + n, log_t, mask=n < N)
    tl.store(stats_ptr + 2 * rows + n, greatest_p, mask=n < N)
    tl.store(stats_ptr + 3 * rows + n, log_p, mask=n < N)
    tl.store(stats_ptr + 4 * rows + n, divergence, mask=n < N)


@triton.jit
def _logit_gradients(logits_ptr, stats_ptr, n, k, N, K):
    """Gradients of the sum of the divergences of the rows with respect to both sides' logits at n x k.

    With P and Q the distributions of target and prediction: P (log P - log Q - divergence), and Q - P. N is at least
    1; rows past the end have those of the last one.
    """
    # Made anew by all D / 64 programs of a row in the kernel of rows, and again in the bank's. Only exponentials are
    # repeated; stored, the gradients would be 2 N K float32 more to write and to read.
    rows = N.to(tl.int64)
    row = tl.minimum(n, N - 1)
    greatest_t, log_t = tl.load(stats_ptr + row), tl.load(stats_ptr + rows + row)
    greatest_p, log_p = tl.load(stats_ptr + 2 * rows + row), tl.load(stats_ptr + 3 * rows + row)
    divergence = tl.load(stats_ptr + 4 * rows + row)
    log_target = load_logits(logits_ptr, n, k, N, K) - greatest_t[:, None] - log_t[:, None]
    prediction_ptr = logits_ptr + rows * K
    log_prediction = load_logits(prediction_ptr, n, k, N, K) - greatest_p[:, None] - log_p[:, None]
    target, prediction = tl.exp(log_target), tl.exp(log_prediction)
    # Past the last prototype both probabilities are 0, but 0 times (-inf - -inf) is NaN: only this side needs a mask.
    of_target = target * (log_target - log_prediction - divergence[:, None])
    return tl.where(k[None, :] < K, of_target, 0.0), prediction - target


@triton.jit(do_not_specialize=["N"])
def _prototype_kl_bwd_rows_kernel(
    dkl_ptr,
    logits_ptr,
    stats_ptr,
    bank_ptr,
    dtarget_ptr,
    dprediction_ptr,
    N,
    K,
    D,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The gradients of both sides' rows: those of their logits times the bank; a program makes one tile of each."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    # share multiplies the sums: gradients are rounded for the product before 1 / N makes them small. N is at least 1,
    # since without rows this kernel is not launched.
    share = tl.load(dkl_ptr).to(tl.float32) / N
    # Two accumulators and two tiles of gradients take up to 251 registers in bfloat16 with eight warps, and spill with
    # four (`_bank.SCHEDULE`; Triton 3.8, sm_80).
    dtarget = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dprediction = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        of_target, of_prediction = _logit_gradients(logits_ptr, stats_ptr, n, k, N, K)
        bank = load_tile(bank_ptr, k.to(tl.int64), d, K, D)
        dtarget = gradient_dot(of_target, bank, dtarget, bank.dtype, PRECISION)
        dprediction = gradient_dot(of_prediction, bank, dprediction, bank.dtype, PRECISION)
    mask = (n[:, None] < N) & (d[None, :] < D)
    place = n[:, None] * D + d[None, :]
    tl.store(dtarget_ptr + place, dtarget * share, mask=mask)
    tl.store(dprediction_ptr + place, dprediction * share, mask=mask)


@triton.jit(do_not_specialize=["N"])
def _prototype_kl_bwd_bank_kernel(
    dkl_ptr,
    logits_ptr,
    stats_ptr,
    target_ptr,
    prediction_ptr,
    sum_ptr,
    N,
    K,
    D,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The bank's gradient, of both sides; a program sums over a part of the rows (`launch_by_parts`)."""
    k = tl.program_id(0).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    # Without rows this kernel runs all the same, to write zeros.
    share = tl.load(dkl_ptr).to(tl.float32) / tl.maximum(N, 1)
    # Both sides add to one accumulator, since they share the bank.
    dbank = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    begin, end = rows_of_part(N, BLOCK_N)
    for first in range(begin, end, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N).to(tl.int64)
        # Rows past the end have gradients, but their target and prediction are zeros.
        of_target, of_prediction = _logit_gradients(logits_ptr, stats_ptr, n, k, N, K)
        target = load_tile(target_ptr, n, d, N, D)
        dbank = gradient_dot(tl.trans(of_target), target, dbank, target.dtype, PRECISION)
        prediction = load_tile(prediction_ptr, n, d, N, D)
        dbank = gradient_dot(tl.trans(of_prediction), prediction, dbank, prediction.dtype, PRECISION)
    mask = (k[:, None] < K) & (d[None, :] < D)
    part_ptr = sum_ptr + tl.program_id(2).to(tl.int64) * K * D
    tl.store(part_ptr + k[:, None] * D + d[None, :], dbank * share, mask=mask)


def prototype_kl_fwd(
    target: Tensor, prediction: Tensor, prototypes: Tensor, precision: str = "ieee"
) -> tuple[Tensor, Tensor, Tensor]:
    """target, prediction [N, D], prototypes [K, D], contiguous.

    Returns the divergence [] and, for the backward pass, logits [2, N, K] and stats [5, N], all float32.
    """
    (rows, columns), bank_rows = target.shape, prototypes.shape[0]
    sizes = {"N": rows, "K": bank_rows, "D": columns}
    logits = target.new_empty(2, rows, bank_rows, dtype=torch.float32)
    constants = tiles(sizes, target.dtype, "D", precision)
    # Where 16 does not divide a side of the bank, float32 spills with two stages (Triton 3.6 and 3.8).
    schedule = SCHEDULE | ({"num_stages": 1} if columns % 16 or bank_rows % 16 else {})
    launch(
        _prototype_kl_fwd_logits_kernel,
        over_tiles(sizes, constants, "NK"),
        {"target_ptr": target, "prediction_ptr": prediction, "bank_ptr": prototypes, "logits_ptr": logits, **sizes},
        constants,
        **schedule,
    )
    stats = logits.new_empty(5, rows)
    # Most banks' rows are read whole, two at a time: a thousand numbers of each side.
    constants = {"BLOCK_N": 2, "BLOCK_K": min(512, triton.next_power_of_2(bank_rows))}
    arguments = {"logits_ptr": logits, "stats_ptr": stats, "N": rows, "K": bank_rows}
    launch(_prototype_kl_fwd_kernel, over_tiles(sizes, constants, "N"), arguments, constants)
    return mean(stats[4], rows), logits, stats


def prototype_kl_bwd(
    dkl: Tensor,
    target: Tensor,
    prediction: Tensor,
    prototypes: Tensor,
    logits: Tensor,
    stats: Tensor,
    with_rows: bool,
    with_bank: bool,
    precision: str = "ieee",
) -> tuple[Tensor, Tensor, Tensor]:
    """dkl [], and what the forward pass took and returned; all contiguous.

    Returns dtarget [N, D], dprediction [N, D] and dprototypes [K, D]; those that are not asked for are empty.
    """
    (rows, columns), bank_rows = target.shape, prototypes.shape[0]
    sizes = {"N": rows, "K": bank_rows, "D": columns}
    saved = {"dkl_ptr": dkl, "logits_ptr": logits, "stats_ptr": stats, **sizes}
    dtarget, dprediction = (target.new_empty((rows, columns) if with_rows else 0) for _ in range(2))
    if with_rows:
        constants = tiles(sizes, target.dtype, "K", precision)
        # Where 16 divides the columns and not the prototypes, float32 spills with two stages (Triton 3.9).
        schedule = SCHEDULE | ({"num_stages": 1} if columns % 16 == 0 and bank_rows % 16 else {})
        launch(
            _prototype_kl_bwd_rows_kernel,
            over_tiles(sizes, constants, "ND"),
            saved | {"bank_ptr": prototypes, "dtarget_ptr": dtarget, "dprediction_ptr": dprediction},
            constants,
            **schedule,
        )
    dbank = target.new_empty((bank_rows, columns) if with_bank else 0)
    if with_bank:
        constants = tiles(sizes, target.dtype, "N", precision)
        launch_by_parts(
            _prototype_kl_bwd_bank_kernel,
            over_tiles(sizes, constants, "KD"),
            rows,
            saved | {"target_ptr": target, "prediction_ptr": prediction},
            constants,
            dbank,
            **SCHEDULE,
        )
    return dtarget, dprediction, dbank
