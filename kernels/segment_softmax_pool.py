"""Pooling each packed segment with softmax weights, forward and backward.

S segments, T rows, D columns; a program takes BLOCK_T rows of its segment and BLOCK_D columns at a time. Every program
that needs weights makes them from the scores, which are few bytes beside the rows. Nothing is added atomically: results
are the same in every run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels.common.launch import launch
from prior_fast.kernels.segment_mean import warps_of_columns


@triton.jit
def _greatest(scores_ptr, begin, end, BLOCK_T: tl.constexpr):
    """The greatest score of a segment, minus infinity for none."""
    # The maximum of each lane, reduced once after the loop: threads do not exchange anything within it.
    top = tl.full([BLOCK_T], float("-inf"), tl.float32)
    for first in range(begin, end, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        top = tl.maximum(top, tl.load(scores_ptr + t, mask=t < end, other=float("-inf")).to(tl.float32))
    return tl.max(top, axis=0)


@triton.jit
def _weights(scores_ptr, t, end, top):
    """exp(score - top), zero past the end."""
    # -inf past the end makes weights of 0, so sums over weights need no mask.
    score = tl.load(scores_ptr + t, mask=t < end, other=float("-inf")).to(tl.float32)
    return tl.exp(score - top)


@triton.jit
def _tile(x_ptr, t, end, d, D):
    """Rows t up to the segment's end, columns d, in float32; zero outside."""
    mask = (t[:, None] < end) & (d[None, :] < D)
    return tl.load(x_ptr + t[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _products(dy_ptr, s, x_ptr, t, end, D, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    """dy_s.x_t for BLOCK_T rows."""
    # No tl.dot: it is a product of a matrix and one vector, and memory is the limit.
    product = tl.zeros([BLOCK_T], tl.float32)
    for first in range(0, D, BLOCK_D):
        d = first + tl.arange(0, BLOCK_D)
        dy = tl.load(dy_ptr + s * D + d, mask=d < D, other=0.0).to(tl.float32)
        product += tl.sum(_tile(x_ptr, t, end, d, D) * dy[None, :], axis=1)
    return product


@triton.jit
def _segment_softmax_pool_fwd_kernel(x_ptr, scores_ptr, cu_ptr, y_ptr, D, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    """y[s] = sum_t w_t x_t / sum_t w_t, of BLOCK_D columns; 0 for an empty segment."""
    # Programs of other columns read the same scores. A sentence has about ten, beside 768 numbers in each of its rows.
    s = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    begin = tl.load(cu_ptr + s).to(tl.int64)
    end = tl.load(cu_ptr + s + 1).to(tl.int64)
    # A pass over the scores for the maximum, then one over the rows, which are read once.
    top = _greatest(scores_ptr, begin, end, BLOCK_T)
    weights = tl.zeros([BLOCK_T], tl.float32)
    y = tl.zeros([BLOCK_D], tl.float32)
    for first in range(begin, end, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        weight = _weights(scores_ptr, t, end, top)
        weights += weight
        y += tl.sum(weight[:, None] * _tile(x_ptr, t, end, d, D), axis=0)
    # Without rows both sums are 0, and 0 / 0 would be NaN.
    total = tl.where(begin < end, tl.sum(weights, axis=0), 1.0)
    tl.store(y_ptr + s * D + d, y / total, mask=d < D)


@triton.jit
def _segment_softmax_pool_bwd_kernel(
    dy_ptr, x_ptr, scores_ptr, cu_ptr, dx_ptr, dscores_ptr, D, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr
):
    """dx_t = w_t dy and dscores_t = w_t (dy.x_t - sum_u w_u dy.x_u), of a whole segment; w sums to 1.

    A first pass makes the sums and a second the gradients; it makes dy.x_t again, of rows that are in the cache: so
    segments may be of any length.
    """
    # One program a segment, with all columns: dy.x_t sums over them. Split by columns it would need atomics or a second
    # launch, and 1,100 sentences are programs enough.
    s = tl.program_id(0).to(tl.int64)
    begin = tl.load(cu_ptr + s).to(tl.int64)
    end = tl.load(cu_ptr + s + 1).to(tl.int64)
    # An empty segment has no row whose gradient could be written.
    if begin >= end:
        return
    top = _greatest(scores_ptr, begin, end, BLOCK_T)
    weights = tl.zeros([BLOCK_T], tl.float32)
    weighted = tl.zeros([BLOCK_T], tl.float32)
    for first in range(begin, end, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        weight = _weights(scores_ptr, t, end, top)
        weights += weight
        weighted += weight * _products(dy_ptr, s, x_ptr, t, end, D, BLOCK_T, BLOCK_D)
    total = tl.sum(weights, axis=0)
    # Weights are divided by their sum when it is known; the exponentials are made again below.
    mean = tl.sum(weighted, axis=0) / total
    for first in range(begin, end, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        weight = _weights(scores_ptr, t, end, top) / total
        product = _products(dy_ptr, s, x_ptr, t, end, D, BLOCK_T, BLOCK_D)
        tl.store(dscores_ptr + t, weight * (product - mean), mask=t < end)
        for column in range(0, D, BLOCK_D):
            d = column + tl.arange(0, BLOCK_D)
            dy = tl.load(dy_ptr + s * D + d, mask=d < D, other=0.0).to(tl.float32)
            mask = (t[:, None] < end) & (d[None, :] < D)
            tl.store(dx_ptr + t[:, None] * D + d[None, :], weight[:, None] * dy[None, :], mask=mask)


def _constants(columns: int) -> dict[str, int]:
    # 8 x 256 numbers are 16 a thread with four warps. 32 rows take 254 registers in float32's backward pass and spill
    # 127 instructions where 16 does not divide the width; 8 take 64 at most (Triton 3.8, sm_80).
    return {"BLOCK_T": 8, "BLOCK_D": min(256, max(16, triton.next_power_of_2(columns)))}


def segment_softmax_pool_fwd(x: Tensor, scores: Tensor, cu_seqlens: Tensor) -> Tensor:
    """x [T, D], scores [T], cu_seqlens [S + 1], all contiguous -> [S, D]."""
    segments, columns = cu_seqlens.shape[0] - 1, x.shape[1]
    y = x.new_empty(segments, columns)
    constants = _constants(columns)
    arguments = {"x_ptr": x, "scores_ptr": scores, "cu_ptr": cu_seqlens, "y_ptr": y, "D": columns}
    grid = (segments, triton.cdiv(columns, constants["BLOCK_D"]))
    warps = warps_of_columns(constants["BLOCK_D"], x.dtype)
    launch(_segment_softmax_pool_fwd_kernel, grid, arguments, constants, num_warps=warps)
    return y


def segment_softmax_pool_bwd(dy: Tensor, x: Tensor, scores: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    """dy [S, D] and the forward's inputs, all contiguous -> dx [T, D], dscores [T]."""
    dx, dscores = torch.empty_like(x), torch.empty_like(scores)
    arguments = {"dy_ptr": dy, "x_ptr": x, "scores_ptr": scores, "cu_ptr": cu_seqlens}
    results = {"dx_ptr": dx, "dscores_ptr": dscores}
    grid, columns = (cu_seqlens.shape[0] - 1,), x.shape[1]
    launch(_segment_softmax_pool_bwd_kernel, grid, arguments | results | {"D": columns}, _constants(columns))
    return dx, dscores
