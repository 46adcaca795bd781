"""The second launch of sums over rows: adds the partial sums that the programs of a first launch left."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels.common.launch import launch

# A warp reads 32 neighbouring floats of a row, a whole line of the cache. Programs of 32 columns are many: the 2,304
# sums of three vectors of width 768 have 72 of them.
BLOCK_P, BLOCK_K = 64, 32


@triton.jit(do_not_specialize=["P"])
def _column_sums_kernel(parts_ptr, sums_ptr, P, K, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr):
    """sums[k] = sum of parts[p, k] over p."""
    k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_P, BLOCK_K], tl.float32)
    for first in range(0, P, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        mask = (p[:, None] < P) & (k[None, :] < K)
        total += tl.load(parts_ptr + p[:, None] * K + k[None, :], mask=mask, other=0.0)
    tl.store(sums_ptr + k, tl.sum(total, axis=0), mask=k < K)


def column_sums(parts: Tensor) -> Tensor:
    """parts [P, ...] float32, contiguous -> their sum over P, [...], added in one order in every run."""
    sums = torch.empty(parts.shape[1:], dtype=torch.float32, device=parts.device)
    arguments = {"parts_ptr": parts, "sums_ptr": sums, "P": parts.shape[0], "K": sums.numel()}
    constants = {"BLOCK_P": BLOCK_P, "BLOCK_K": BLOCK_K}
    launch(_column_sums_kernel, (triton.cdiv(sums.numel(), BLOCK_K),), arguments, constants)
    return sums
