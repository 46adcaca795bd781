"""Sums over rows whose tiles are too few for a GPU: each program sums a part of the rows, a second launch adds them.

Without parts, the gradient of PRIOR's bank (K = 512, D = 768) has 8 x 12 tiles of 64 x 64: 96 programs, fewer than an
H200's 132 multiprocessors, each of which passes over all rows. Three parts are 288 programs. They write and read 3 K D
float32, 4.7 MB each time. At N = 1,034 that is little beside what the programs read: in float32, 108 MB for
prototype_lookup and 102 for prototype_kl (from the level-2 cache; 8 or 12 of them read a number). Every part is added
in its place: two runs are equal bit for bit. The number of parts follows from the sizes alone, so all GPUs round alike.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels.common.launch import launch

# Two for each multiprocessor of an H200.
LEAST_PROGRAMS = 264
# The least rows of a part: a tile of 64 x 64 then reads 64 KiB or more, and its sums are 16.
LEAST_ROWS = 128
BLOCK = 1024


@triton.jit
def rows_of_part(N, BLOCK_N: tl.constexpr):
    """The first row of this program's part, and the first after it; parts lie along the grid's third axis."""
    pieces = tl.cdiv(tl.cdiv(N, BLOCK_N), tl.num_programs(2))
    first = tl.program_id(2) * pieces * BLOCK_N
    # A part that begins past the last row is empty, and its sums are zeros.
    return first, tl.minimum(first + pieces * BLOCK_N, N)


@triton.jit(do_not_specialize=["P"])
def _add_parts_kernel(parts_ptr, sum_ptr, P, COUNT, BLOCK: tl.constexpr):
    """sum[i] = parts[0, i] + parts[1, i] + ..., in this order."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for _ in range(0, P):
        total += tl.load(parts_ptr + i, mask=i < COUNT, other=0.0)
        parts_ptr += COUNT
    tl.store(sum_ptr + i, total, mask=i < COUNT)


def row_parts(rows: int, tiles: int) -> int:
    """Into how many parts the rows of a sum with so many tiles are divided: 1 or more."""
    return max(1, min(triton.cdiv(LEAST_PROGRAMS, max(tiles, 1)), rows // LEAST_ROWS))


def launch_by_parts(
    kernel: object,
    grid: tuple[int, ...],
    rows: int,
    arguments: dict[str, Any],
    constants: dict[str, Any],
    sums: Tensor,
    **schedule: int,
) -> None:
    """Run `kernel` over the tiles `grid` and over parts of `rows`; it writes part p to place p of `sum_ptr`.

    sums: the result, contiguous. A single part writes to it directly. Several are kept in float32 and rounded once.
    """
    parts = row_parts(rows, math.prod(grid))
    if parts == 1:
        launch(kernel, (*grid, 1), arguments | {"sum_ptr": sums}, constants, **schedule)
        return
    kept = sums.new_empty((parts, *sums.shape), dtype=torch.float32)
    launch(kernel, (*grid, parts), arguments | {"sum_ptr": kept}, constants, **schedule)
    adding = {"parts_ptr": kept, "sum_ptr": sums, "P": parts, "COUNT": sums.numel()}
    launch(_add_parts_kernel, (triton.cdiv(sums.numel(), BLOCK),), adding, {"BLOCK": BLOCK})
