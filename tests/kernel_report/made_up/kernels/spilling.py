"""A kernel whose threads keep 512 numbers each during a sum, twice as many as they have registers."""

import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels.common.launch import launch


@triton.jit
def _spilling_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i).to(tl.float32)
    tl.store(y_ptr + i, x * tl.sum(x))


def spilling_fwd(x: Tensor) -> Tensor:
    """x [16384] -> x times its sum."""
    y = x.new_empty(16384)
    launch(_spilling_kernel, (1,), {"x_ptr": x, "y_ptr": y}, {"BLOCK": 16384}, num_warps=1)
    return y
