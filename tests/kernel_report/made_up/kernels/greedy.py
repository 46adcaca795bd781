"""A product whose operands take more shared memory than a block may have; and a kernel that nothing launches."""

import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels.common.launch import launch


@triton.jit
def _greedy_kernel(x_ptr, y_ptr, N, K: tl.constexpr, BLOCK: tl.constexpr):
    row, column, k = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :], tl.arange(0, K)
    x = tl.load(x_ptr + row * N + k[None, :])
    y = tl.load(x_ptr + k[:, None] * N + column)
    tl.store(y_ptr + row * N + column, tl.dot(x, y))


@triton.jit
def _forgotten_kernel(x_ptr):
    tl.store(x_ptr, 0.0)


def greedy_fwd(x: Tensor) -> Tensor:
    """x [1024, 1024] -> the first 64 rows and columns of x x."""
    y = x.new_empty(64, 64)
    launch(_greedy_kernel, (1,), {"x_ptr": x, "y_ptr": y, "N": 1024}, {"K": 1024, "BLOCK": 64})
    return y
