"""The mean of each packed segment, forward and backward.

S segments, T rows, D columns; a program takes one segment and BLOCK_D columns, BLOCK_T rows at a time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels.common.launch import launch

# A sentence has about ten rows: of larger pieces more would be masked.
BLOCK_T = 8


@triton.jit
def _segment_mean_fwd_kernel(x_ptr, cu_ptr, y_ptr, D, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    """y[s] = sum of x over rows cu[s] .. cu[s + 1] - 1, over their number; 0 for none."""
    s = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    begin = tl.load(cu_ptr + s).to(tl.int64)
    end = tl.load(cu_ptr + s + 1).to(tl.int64)
    total = tl.zeros([BLOCK_D], tl.float32)
    for first in range(begin, end, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        mask = (t[:, None] < end) & (d[None, :] < D)
        x = tl.load(x_ptr + t[:, None] * D + d[None, :], mask=mask, other=0.0)
        # Widened before the sum, and divided once after it: bfloat16 would round each partial sum.
        total += tl.sum(x.to(tl.float32), axis=0)
    # A program has whole columns of its segment, so it has their whole sums, always in one order.
    count = tl.maximum(end - begin, 1).to(tl.float32)
    tl.store(y_ptr + s * D + d, total / count, mask=d < D)


@triton.jit
def _segment_mean_bwd_kernel(dy_ptr, cu_ptr, dx_ptr, D, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    """dx[t] = dy[s] / rows of s, for the rows t of segment s."""
    s = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    begin = tl.load(cu_ptr + s).to(tl.int64)
    end = tl.load(cu_ptr + s + 1).to(tl.int64)
    count = tl.maximum(end - begin, 1).to(tl.float32)
    # All rows of a segment have the same gradient: one division a column, then stores alone.
    dx = tl.load(dy_ptr + s * D + d, mask=d < D, other=0.0).to(tl.float32) / count
    for first in range(begin, end, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        mask = (t[:, None] < end) & (d[None, :] < D)
        tile = tl.broadcast_to(dx[None, :], [BLOCK_T, BLOCK_D])
        tl.store(dx_ptr + t[:, None] * D + d[None, :], tile, mask=mask)


def _constants(columns: int) -> dict[str, int]:
    return {"BLOCK_T": BLOCK_T, "BLOCK_D": min(256, max(16, triton.next_power_of_2(columns)))}


def warps_of_columns(block: int, dtype: torch.dtype) -> int:
    """Warps that lie along a row of `block` columns, 16 bytes for each thread, so that each thread has all rows.

    With more warps, threads exchange sums over rows through shared memory. With four, the mean of 10,340 rows in
    bfloat16 took 61 us on an H200 (bench/results/nvidia-h200/kernels-2.json).
    """
    return max(1, block * dtype.itemsize // 512)


def segment_mean_fwd(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    """x [T, D], cu_seqlens [S + 1], both contiguous -> [S, D]."""
    segments, columns = cu_seqlens.shape[0] - 1, x.shape[1]
    y = x.new_empty(segments, columns)
    constants = _constants(columns)
    grid = (segments, triton.cdiv(columns, constants["BLOCK_D"]))
    warps = warps_of_columns(constants["BLOCK_D"], x.dtype)
    arguments = {"x_ptr": x, "cu_ptr": cu_seqlens, "y_ptr": y, "D": columns}
    launch(_segment_mean_fwd_kernel, grid, arguments, constants, num_warps=warps)
    return y


def segment_mean_bwd(dy: Tensor, cu_seqlens: Tensor, rows: int) -> Tensor:
    """dy [S, D], cu_seqlens [S + 1], both contiguous -> dx [rows, D]."""
    segments, columns = dy.shape
    dx = torch.empty(rows, columns, dtype=dy.dtype, device=dy.device)
    constants = _constants(columns)
    grid = (segments, triton.cdiv(columns, constants["BLOCK_D"]))
    launch(_segment_mean_bwd_kernel, grid, {"dy_ptr": dy, "cu_ptr": cu_seqlens, "dx_ptr": dx, "D": columns}, constants)
    return dx
