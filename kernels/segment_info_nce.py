"""Symmetric InfoNCE within each segment, forward and backward.

S segments, T rows, D columns. What sides, t, stats and blocks are is told in `prior_fast.kernels._contrast`; stats are
of all T rows, losses and slopes divided by how many there are in the segment's mean. A program takes one segment, one
side and BLOCK_I rows, and passes over the segment's rows of the other side. The backward makes products anew, once for
each BLOCK_E columns of the gradients. Nothing is added atomically: results are the same in every run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels._contrast import dot_wide, gradient, load_rows, load_scale, products, see, store_stats
from prior_fast.kernels.common.launch import launch


@triton.jit
def _segment_info_nce_fwd_kernel(
    a_ptr, b_ptr, scale_ptr, cu_ptr, stats_ptr, T, D,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The stats of BLOCK_I rows of a segment, on one side."""
    # A report of PRIOR has eight sentences in the mean and 16 at most. So one tile of 16 rows, a tensor core's least,
    # holds a report, and the grid is one program for each report and side.
    segment = tl.program_id(0).to(tl.int64)
    side = tl.program_id(2).to(tl.int64)
    x_ptr = tl.where(side == 0, a_ptr, b_ptr)
    y_ptr = tl.where(side == 0, b_ptr, a_ptr)
    begin = tl.load(cu_ptr + segment).to(tl.int64)
    end = tl.load(cu_ptr + segment + 1).to(tl.int64)
    start = begin + tl.program_id(1) * BLOCK_I
    # The grid covers the longest segment, so programs past the end of a shorter one have nothing to do.
    if start >= end:
        return
    s, sign = load_scale(scale_ptr)
    i = start + tl.arange(0, BLOCK_I)
    of_i = i < end

    # Four numbers a row are carried through the loop, so segments may be of any length.
    top = tl.full([BLOCK_I], float("-inf"), tl.float32)
    rest = tl.zeros([BLOCK_I], tl.float32)
    moment = tl.zeros([BLOCK_I], tl.float32)
    own = tl.zeros([BLOCK_I], tl.float32)
    for first in range(begin, end, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        of_j = j < end
        t = products(x_ptr, i, of_i, y_ptr, j, of_j, sign, D, BLOCK_I, BLOCK_J, BLOCK_D)
        top, rest, moment, own = see(t, i, j, of_j, s, top, rest, moment, own)
    # A row's share of its segment's mean over both sides. The number of segments with rows is not known here.
    share = 0.5 / (end - begin).to(tl.float32)
    store_stats(stats_ptr, side * T + i, of_i, T, s, sign, share, top, rest, moment, own)


@triton.jit(do_not_specialize=["S", "T"])
def _segment_info_nce_total_kernel(
    stats_ptr, cu_ptr, loss_ptr, slope_ptr, share_ptr, S, T, BLOCK_S: tl.constexpr, BLOCK_T: tl.constexpr
):
    """Loss and slope, means over the segments with rows, and one over their number.

    In one program: always in the same order.
    """
    # Segments with rows are counted on the device: the host would have to wait for the offsets.
    count = tl.zeros([BLOCK_S], tl.int32)
    for first in range(0, S, BLOCK_S):
        segment = first + tl.arange(0, BLOCK_S)
        begin = tl.load(cu_ptr + segment, mask=segment < S, other=0)
        end = tl.load(cu_ptr + segment + 1, mask=segment < S, other=0)
        count += (end > begin).to(tl.int32)
    loss = tl.zeros([BLOCK_T], tl.float32)
    slope = tl.zeros([BLOCK_T], tl.float32)
    for first in range(0, 2 * T, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        loss += tl.load(stats_ptr + 6 * T + t, mask=t < 2 * T, other=0.0)
        slope += tl.load(stats_ptr + 8 * T + t, mask=t < 2 * T, other=0.0)
    segments = tl.maximum(tl.sum(count, axis=0), 1).to(tl.float32)
    tl.store(loss_ptr, tl.sum(loss, axis=0) / segments)
    tl.store(slope_ptr, tl.sum(slope, axis=0) / segments)
    tl.store(share_ptr, 1.0 / segments)


@triton.jit
def _segment_info_nce_bwd_kernel(
    dloss_ptr, a_ptr, b_ptr, scale_ptr, cu_ptr, stats_ptr, slope_ptr, share_ptr, da_ptr, db_ptr, dscale_ptr, T, D,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """dx_i = scale dloss share / n sum_j ((p_ij + q_ij) / 2 - [i = j]) y_j, of BLOCK_I of a segment's n rows, on one
    side, and BLOCK_E columns."""
    # Products are made anew, once for each 128 columns of the gradient, so six times at D = 768: no [T, T] is kept. In
    # float32 that is 0.35 ms of an H200's stage-3 step (docs/h200.md).
    segment = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(D, BLOCK_E)
    side = (tl.program_id(2) // blocks).to(tl.int64)
    x_ptr = tl.where(side == 0, a_ptr, b_ptr)
    y_ptr = tl.where(side == 0, b_ptr, a_ptr)
    dx_ptr = tl.where(side == 0, da_ptr, db_ptr)
    begin = tl.load(cu_ptr + segment).to(tl.int64)
    end = tl.load(cu_ptr + segment + 1).to(tl.int64)
    start = begin + tl.program_id(1) * BLOCK_I
    dloss = tl.load(dloss_ptr)
    # Before the return, since the first segment may be empty.
    if (segment == 0) & (tl.program_id(1) == 0) & (tl.program_id(2) == 0):
        tl.store(dscale_ptr, dloss * tl.load(slope_ptr))
    if start >= end:
        return
    s, sign = load_scale(scale_ptr)
    i = start + tl.arange(0, BLOCK_I)
    of_i = i < end
    e = tl.program_id(2) % blocks * BLOCK_E + tl.arange(0, BLOCK_E)
    top_i = tl.load(stats_ptr + side * T + i, mask=of_i, other=0.0)
    peak_i = tl.load(stats_ptr + (2 + side) * T + i, mask=of_i, other=0.0)
    off_i = tl.load(stats_ptr + 4 * T + i, mask=of_i, other=0.0) + tl.load(stats_ptr + 5 * T + i, mask=of_i, other=0.0)

    # 16 x 128 sums are 16 registers a thread. A program owns them and sums over its segment: no atomics.
    dx = tl.zeros([BLOCK_I, BLOCK_E], tl.float32)
    for first in range(begin, end, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        of_j = j < end
        t = products(x_ptr, i, of_i, y_ptr, j, of_j, sign, D, BLOCK_I, BLOCK_J, BLOCK_D)
        top_j = tl.load(stats_ptr + (1 - side) * T + j, mask=of_j, other=0.0)
        peak_j = tl.load(stats_ptr + (3 - side) * T + j, mask=of_j, other=0.0)
        g = gradient(t, i, of_i, j, of_j, s, top_i, peak_i, off_i, top_j, peak_j)
        dx = dot_wide(g, load_rows(y_ptr, j, of_j, e, D), dx)
    factor = 0.5 * s * sign * dloss * tl.load(share_ptr) / (end - begin).to(tl.float32)
    tl.store(dx_ptr + i[:, None] * D + e[None, :], dx * factor, mask=of_i[:, None] & (e[None, :] < D))


def _constants(x: Tensor, max_seqlen: int) -> dict[str, int]:
    """Blocks are smaller for float32, whose products have no tensor cores, so that threads hold their operands in
    registers; and for rows that do not all begin at multiples of 16 bytes, whose numbers are loaded one by one."""
    small = x.dtype == torch.float32 or x.shape[1] % 16 != 0
    # In float32's backward pass 64 rows of y spill 2 to 95 instructions, and 32 take up to 149 registers (Triton 3.8,
    # sm_80). In 16 bits they follow the longest segment, so that short ones are not padded to 64.
    block_j = 32 if small else min(64, max(16, triton.next_power_of_2(max_seqlen)))
    return {"BLOCK_I": 16, "BLOCK_J": block_j, "BLOCK_D": 32 if small else 64}


def segment_info_nce_fwd(
    a: Tensor, b: Tensor, scale: Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a, b [T, D] and cu_seqlens [S + 1] contiguous, scale [] -> loss [], slope [], share [], stats [5, 2, T]."""
    (rows, columns), segments = a.shape, cu_seqlens.shape[0] - 1
    stats = a.new_empty(5, 2, rows, dtype=torch.float32)
    loss, slope, share = (stats.new_empty(()) for _ in range(3))
    constants = _constants(a, max_seqlen)
    arguments = {"a_ptr": a, "b_ptr": b, "scale_ptr": scale, "cu_ptr": cu_seqlens, "stats_ptr": stats}
    grid = (segments, triton.cdiv(max_seqlen, constants["BLOCK_I"]), 2)
    # Loads of single numbers are not pipelined.
    stages = 3 if columns % 16 == 0 else 1
    launch(_segment_info_nce_fwd_kernel, grid, arguments | {"T": rows, "D": columns}, constants, num_stages=stages)
    arguments = {"stats_ptr": stats, "cu_ptr": cu_seqlens, "loss_ptr": loss, "slope_ptr": slope, "share_ptr": share}
    sizes = {"S": segments, "T": rows}
    launch(_segment_info_nce_total_kernel, (1,), arguments | sizes, {"BLOCK_S": 128, "BLOCK_T": 1024})
    return loss, slope, share, stats


def segment_info_nce_bwd(
    dloss: Tensor,
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    cu_seqlens: Tensor,
    slope: Tensor,
    share: Tensor,
    stats: Tensor,
    max_seqlen: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """As the forward's inputs and outputs -> da, db [T, D], dscale []."""
    (rows, columns), segments = a.shape, cu_seqlens.shape[0] - 1
    da, db = torch.empty_like(a), torch.empty_like(b)
    # Without a row nothing is launched that could write it.
    dscale = torch.empty_like(scale) if rows and columns else torch.zeros_like(scale)
    # With 256 columns float32 takes 237 to 250 registers where 128 take 128 to 149 (Triton 3.8, sm_80).
    constants = _constants(a, max_seqlen) | {"BLOCK_E": 128}
    arguments = {"dloss_ptr": dloss, "a_ptr": a, "b_ptr": b, "scale_ptr": scale, "cu_ptr": cu_seqlens}
    arguments |= {"stats_ptr": stats, "slope_ptr": slope, "share_ptr": share}
    arguments |= {"da_ptr": da, "db_ptr": db, "dscale_ptr": dscale}
    grid = (segments, triton.cdiv(max_seqlen, constants["BLOCK_I"]), 2 * triton.cdiv(columns, constants["BLOCK_E"]))
    launch(_segment_info_nce_bwd_kernel, grid, arguments | {"T": rows, "D": columns}, constants, num_stages=2)
    return da, db, dscale
