"""`segment_mean` by csrc/segments_cpu.cpp: what it computes is there, shapes and gradient are here.

This is not in the op's file, which is the example of an op without C++.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from prior_fast.ops.common.cpp import offsets_fit, surely_serves
from prior_fast.ops.common.triton import wants_gradient

torch.library.define("prior_fast::segment_mean_cpp", "(Tensor x, Tensor cu_seqlens) -> Tensor")
torch.library.define("prior_fast::segment_mean_cpp_backward", "(Tensor dy, Tensor cu_seqlens, SymInt rows) -> Tensor")


@torch.library.register_fake("prior_fast::segment_mean_cpp")
def _(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    return x.new_empty(cu_seqlens.shape[0] - 1, x.shape[1])


@torch.library.register_fake("prior_fast::segment_mean_cpp_backward")
def _(dy: Tensor, cu_seqlens: Tensor, rows: int) -> Tensor:
    return dy.new_empty(rows, dy.shape[1])


_MEAN = torch.ops.prior_fast.segment_mean_cpp.default
_BACKWARD = torch.ops.prior_fast.segment_mean_cpp_backward.default


# torch.library.register_autograd would take longer than the kernels of a small batch.
class _SegmentMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cu_seqlens: Tensor) -> Tensor:
        ctx.save_for_backward(cu_seqlens)
        ctx.rows = x.shape[0]
        return _MEAN(x, cu_seqlens)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (cu_seqlens,) = ctx.saved_tensors
        return _BACKWARD(dy, cu_seqlens, ctx.rows), None


def segment_mean_cpp(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    """`prior_fast.ops.segment_mean` of float32 or bfloat16 rows on a CPU; the library must be built."""
    return (_SegmentMean.apply if wants_gradient(x) else _MEAN)(x, cu_seqlens)


def surely_fits(x: Tensor, cu_seqlens: Tensor, wanted: str | None) -> bool:
    """Whether "cpp" serves the call; see `prior_fast.ops.common.cpp.surely_serves`."""
    return surely_serves(wanted, x) and x.dim() == 2 and offsets_fit(cu_seqlens, x.shape[0])
