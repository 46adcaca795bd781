"""Symmetric InfoNCE, forward and backward, of the rows that a process owns against all rows.

N pairs of vectors in all, D columns; the process owns `rows` of them from row `begin` on. What sides, t, stats and
blocks are is told in `prior_fast.kernels._contrast`. A program takes one side and BLOCK_I owned rows, and passes over
all N rows of the other side. With KEEP the products t [2, rows, N] are kept for the backward: for small batches. If not
kept, the backward makes them anew, once for each BLOCK_E columns of the gradients, and memory is linear in rows and N.
Nothing is added atomically: results are the same in every run.

An H200 takes 11 us forward and 18 both ways for 128 pairs of 768 columns in bfloat16, and 47 and 94 for 1,024 pairs
(docs/h200.md). In float32, without tensor cores, 128 pairs take 72 us forward, and 256 pairs 136 where plain PyTorch
takes 85. So the op leaves 129 to 1,024 float32 rows of a single process to plain PyTorch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels._contrast import dot_wide, gradient, load_rows, load_scale, products, see, store_stats
from prior_fast.kernels.common.launch import launch


@triton.jit
def _info_nce_fwd_kernel(
    a_ptr, b_ptr, scale_ptr, stats_ptr, kept_ptr, begin, rows, N, D,
    KEEP: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The stats of BLOCK_I owned rows of one side, and their products where they are kept."""
    # Each side makes the products for itself. A program that served both would have to add to the softmaxes of columns
    # that other programs share, which takes atomics or another pass.
    side = tl.program_id(1).to(tl.int64)
    # Pointers are selected, so one loop serves both sides and the kernel holds it once.
    x_ptr = tl.where(side == 0, a_ptr, b_ptr)
    y_ptr = tl.where(side == 0, b_ptr, a_ptr)
    s, sign = load_scale(scale_ptr)
    row = tl.program_id(0).to(tl.int64) * BLOCK_I + tl.arange(0, BLOCK_I)
    i = begin + row
    of_i = row < rows

    # Four numbers a row are carried through the loop. A tile of t is used at once and dropped.
    top = tl.full([BLOCK_I], float("-inf"), tl.float32)
    rest = tl.zeros([BLOCK_I], tl.float32)
    moment = tl.zeros([BLOCK_I], tl.float32)
    own = tl.zeros([BLOCK_I], tl.float32)
    for first in range(0, N, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J).to(tl.int64)
        of_j = j < N
        t = products(x_ptr, i, of_i, y_ptr, j, of_j, sign, D, BLOCK_I, BLOCK_J, BLOCK_D)
        # t is kept and not the gradient: that needs the other side's stats, which are not known yet.
        if KEEP:
            tl.store(kept_ptr + (side * rows + row)[:, None] * N + j[None, :], t, mask=of_i[:, None] & of_j[None, :])
        top, rest, moment, own = see(t, i, j, of_j, s, top, rest, moment, own)
    store_stats(stats_ptr, side * rows + row, of_i, rows, s, sign, 1.0, top, rest, moment, own)


@triton.jit(do_not_specialize=["N"])
def _info_nce_total_kernel(stats_ptr, loss_ptr, slope_ptr, N, BLOCK_N: tl.constexpr):
    """The means over both sides' losses and slopes, in one program: always in the same order."""
    # N is not specialized: it changes with the batch.
    loss = tl.zeros([BLOCK_N], tl.float32)
    slope = tl.zeros([BLOCK_N], tl.float32)
    for first in range(0, 2 * N, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        loss += tl.load(stats_ptr + 6 * N + n, mask=n < 2 * N, other=0.0)
        slope += tl.load(stats_ptr + 8 * N + n, mask=n < 2 * N, other=0.0)
    count = tl.maximum(2 * N, 1).to(tl.float32)
    tl.store(loss_ptr, tl.sum(loss, axis=0) / count)
    tl.store(slope_ptr, tl.sum(slope, axis=0) / count)


@triton.jit
def _info_nce_bwd_kernel(
    dloss_ptr, a_ptr, b_ptr, scale_ptr, stats_ptr, slope_ptr, kept_ptr, da_ptr, db_ptr, dscale_ptr, begin, rows, N, D,
    KEEP: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """dx_i = scale dloss / N sum_j ((p_ij + q_ij) / 2 - [i = j]) y_j, of BLOCK_I rows and BLOCK_E columns of one side.

    stats are those of all N rows.
    """
    # A program owns its rows and columns of the gradient and sums over all N rows of the other side: no atomics. 128
    # pairs of 768 columns are 8 x 6 x 2 = 96 programs.
    side = tl.program_id(2).to(tl.int64)
    x_ptr = tl.where(side == 0, a_ptr, b_ptr)
    y_ptr = tl.where(side == 0, b_ptr, a_ptr)
    dx_ptr = tl.where(side == 0, da_ptr, db_ptr)
    s, sign = load_scale(scale_ptr)
    row = tl.program_id(0).to(tl.int64) * BLOCK_I + tl.arange(0, BLOCK_I)
    i = begin + row
    of_i = row < rows
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    top_i = tl.load(stats_ptr + side * N + i, mask=of_i, other=0.0)
    peak_i = tl.load(stats_ptr + (2 + side) * N + i, mask=of_i, other=0.0)
    off_i = tl.load(stats_ptr + 4 * N + i, mask=of_i, other=0.0) + tl.load(stats_ptr + 5 * N + i, mask=of_i, other=0.0)

    # 16 x 128 sums with four warps are 16 registers a thread, 32 x 256 with eight are 32.
    dx = tl.zeros([BLOCK_I, BLOCK_E], tl.float32)
    for first in range(0, N, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J).to(tl.int64)
        of_j = j < N
        if KEEP:
            mask = of_i[:, None] & of_j[None, :]
            t = tl.load(kept_ptr + (side * rows + row)[:, None] * N + j[None, :], mask=mask, other=0.0)
        else:
            t = products(x_ptr, i, of_i, y_ptr, j, of_j, sign, D, BLOCK_I, BLOCK_J, BLOCK_D)
        top_j = tl.load(stats_ptr + (1 - side) * N + j, mask=of_j, other=0.0)
        peak_j = tl.load(stats_ptr + (3 - side) * N + j, mask=of_j, other=0.0)
        # float32 for both softmaxes together; dot_wide splits it for tensor cores.
        g = gradient(t, i, of_i, j, of_j, s, top_i, peak_i, off_i, top_j, peak_j)
        dx = dot_wide(g, load_rows(y_ptr, j, of_j, e, D), dx)
    # All factors are applied to the float32 sums, so their size costs no precision before.
    dloss = tl.load(dloss_ptr)
    mask = of_i[:, None] & (e[None, :] < D)
    tl.store(dx_ptr + row[:, None] * D + e[None, :], dx * (0.5 * s * sign * dloss / N), mask=mask)
    # The slope of the whole batch is known since the forward pass, so one program writes the multiplier's gradient.
    if (tl.program_id(0) == 0) & (tl.program_id(1) == 0) & (side == 0):
        tl.store(dscale_ptr, dloss * tl.load(slope_ptr))


def _forward_options(x: Tensor, keep: bool) -> tuple[dict[str, int | bool], int]:
    """Constants and warps. Few rows are cut finely, for as many programs as can be; many coarsely, for less traffic.

    Blocks are smaller for float32, whose products have no tensor cores, so that a thread holds their operands in
    registers; and for rows that do not all begin at multiples of 16 bytes, whose numbers are loaded one by one.
    """
    wide, aligned = x.dtype == torch.float32, x.shape[1] % 16 == 0
    # Where products are kept, 16 rows, a tensor core's least, make 8 x 2 programs of 128 pairs. 64 rows would spill 160
    # instructions in bfloat16 with four warps. 128 rows of y would take all 255 registers in float32 (Triton 3.8,
    # sm_80).
    if wide:
        sides, depth = ((16, 64), 32 if aligned else 16) if keep else ((64, 64), 16)
    elif aligned:
        sides, depth = ((16, 128), 64) if keep else ((64, 128), 64)
    else:
        sides, depth = ((16, 64), 32) if keep else ((64, 64), 32)
    # Eight warps for 64 rows: with four, 64 x 128 in bfloat16 spills 14 to 16 instructions (Triton 3.8, sm_80).
    return {"KEEP": keep, "BLOCK_I": sides[0], "BLOCK_J": sides[1], "BLOCK_D": depth}, 4 if keep else 8


def _backward_options(x: Tensor, keep: bool) -> tuple[dict[str, int | bool], int]:
    """As `_forward_options`. Without kept products, the fewer blocks of columns the fewer times they are made anew."""
    wide, aligned = x.dtype == torch.float32, x.shape[1] % 16 == 0
    side = 16 if keep else 32
    # 256 columns make the products of 768 columns three times and not six. With kept products there is nothing to save,
    # and 256 spill 41 instructions in bfloat16 where 16 does not divide the widths (Triton 3.8, sm_80).
    width, depth = (256, 32 if wide else 64) if aligned and not keep else (128, 16 if wide else 32)
    constants = {"BLOCK_I": side, "BLOCK_J": 32 if wide else 64, "BLOCK_D": depth, "BLOCK_E": width}
    return {"KEEP": keep, **constants}, 4 if keep else 8


def info_nce_fwd(a: Tensor, b: Tensor, scale: Tensor, begin: int, rows: int, keep: bool) -> tuple[Tensor, Tensor]:
    """a, b [N, D] contiguous, scale [] -> stats [5, 2, rows] of the rows from `begin` on, and their products.

    Products are [2, rows, N] where `keep` is set, else [0, rows, N].
    """
    stats = a.new_empty(5, 2, rows, dtype=torch.float32)
    kept = a.new_empty(2 if keep else 0, rows, a.shape[0], dtype=torch.float32)
    constants, warps = _forward_options(a, keep)
    arguments = {"a_ptr": a, "b_ptr": b, "scale_ptr": scale, "stats_ptr": stats, "kept_ptr": kept}
    sizes = {"begin": begin, "rows": rows, "N": a.shape[0], "D": a.shape[1]}
    grid = (triton.cdiv(rows, constants["BLOCK_I"]), 2)
    # Loads of single numbers are not pipelined. Nor are those of large tiles of float32: with Triton 3.6 they spill.
    stages = 3 if a.shape[1] % 16 == 0 and (keep or a.dtype != torch.float32) else 1
    launch(_info_nce_fwd_kernel, grid, arguments | sizes, constants, num_warps=warps, num_stages=stages)
    return stats, kept


def info_nce_total(stats: Tensor) -> tuple[Tensor, Tensor]:
    """stats [5, 2, N] of all rows, contiguous -> loss [] and slope []."""
    loss, slope = stats.new_empty(()), stats.new_empty(())
    arguments = {"stats_ptr": stats, "loss_ptr": loss, "slope_ptr": slope, "N": stats.shape[2]}
    launch(_info_nce_total_kernel, (1,), arguments, {"BLOCK_N": 1024})
    return loss, slope


def info_nce_bwd(
    dloss: Tensor, a: Tensor, b: Tensor, scale: Tensor, stats: Tensor, slope: Tensor, kept: Tensor, begin: int
) -> tuple[Tensor, Tensor, Tensor]:
    """As the forward's, with stats [5, 2, N] of all rows -> da and db [rows, D] of the owned rows, dscale []."""
    (count, columns), rows = a.shape, kept.shape[1]
    da, db = a.new_empty(rows, columns), b.new_empty(rows, columns)
    # Without a row nothing is launched that could write it.
    dscale = torch.empty_like(scale) if rows and columns else torch.zeros_like(scale)
    constants, warps = _backward_options(a, kept.shape[0] > 0)
    arguments = {"dloss_ptr": dloss, "a_ptr": a, "b_ptr": b, "scale_ptr": scale, "stats_ptr": stats}
    arguments |= {"slope_ptr": slope, "kept_ptr": kept, "da_ptr": da, "db_ptr": db, "dscale_ptr": dscale}
    sizes = {"begin": begin, "rows": rows, "N": count, "D": columns}
    grid = (triton.cdiv(rows, constants["BLOCK_I"]), triton.cdiv(columns, constants["BLOCK_E"]), 2)
    # Loads of single numbers are not pipelined, except where products are kept: there one stage spills with Triton 3.6.
    stages = 2 if columns % 16 == 0 or kept.shape[0] else 1
    launch(_info_nce_bwd_kernel, grid, arguments | sizes, constants, num_warps=warps, num_stages=stages)
    return da, db, dscale
