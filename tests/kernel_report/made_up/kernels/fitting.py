"""A product of two tiles, as small as tensor cores of sm_90 take."""

import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels.common.launch import launch


@triton.jit
def _fitting_kernel(x_ptr, y_ptr, N, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    x = tl.load(x_ptr + row * N + column)
    y = tl.load(x_ptr + tl.arange(0, COLUMNS)[:, None] * N + column)
    tl.store(y_ptr + row * N + column, tl.dot(x, y, input_precision="ieee"))


def fitting_fwd(x: Tensor) -> Tensor:
    """x [64, N] -> x times its first N rows."""
    y = x.new_empty(x.shape)
    launch(_fitting_kernel, (1,), {"x_ptr": x, "y_ptr": y, "N": x.shape[1]}, {"ROWS": 64, "COLUMNS": x.shape[1]})
    return y
