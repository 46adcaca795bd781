"""Batch normalization over the rows of all ranks with the kernels of csrc/batch_norm_cpu.cpp.

Each direction exchanges one small tensor. The passes over the rows are memory-bound; torch's operations would make
several of them, in float32.
"""

from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.distributed import ProcessGroup

from prior_fast import extension
from prior_fast.model.exchange import Exchange
from prior_fast.model.norm_kernels import as_rows


def all_have_kernels(group: ProcessGroup) -> bool:
    """Whether the library is built on every rank of `group`; every rank must call it."""
    built = torch.tensor([int(extension.unavailable("cpu") is None)])
    torch.distributed.all_reduce(built, torch.distributed.ReduceOp.MIN, group=group)
    return bool(built)


def joined_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    group: ProcessGroup | None,
    exchange: Exchange | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize the channels over the rows, or pixels, of all ranks; every rank must call it.

    Args:
        x: [N, C], or [B, C, h, w] with the channels last in memory, float32 or bfloat16, on the CPU. Ranks may have
            different N, also 0.
        weight, bias: [C] float32; None is 1 and 0.
        eps: added to the variance.
        exchange: between the ranks of `group`, if they are processes of one machine.

    Returns:
        y like x, and the mean and the unbiased variance [C] float32, without a gradient. The gradients of weight and
        bias are those of this rank's rows.
    """
    y, scales = _JoinedNorm.apply(x, weight, bias, eps, group, exchange)
    return y, scales[0], scales[1]


class _JoinedNorm(torch.autograd.Function):
    # Its output has the final shape: a view of it would make a ReLU in place copy the whole gradient.
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        group: ProcessGroup | None,
        exchange: Exchange | None,
    ) -> tuple[Tensor, Tensor]:
        rank, ranks = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
        # One row for each rank, so that the sum over the ranks gathers them and all ranks join them in one order.
        moments = torch.ops.prior_fast.norm_moments(x, x.shape[1], rank, ranks)
        _sum_over_ranks(moments, group, exchange)
        scales = torch.ops.prior_fast.norm_scales(moments, weight, bias, eps)
        ctx.save_for_backward(x, scales, moments)
        ctx.ranks = group, exchange
        ctx.mark_non_differentiable(scales)
        return torch.ops.prior_fast.norm_apply(x, scales), scales

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, scales, moments = ctx.saved_tensors
        if not as_rows(dy).is_contiguous():
            dy = torch.empty_like(x).copy_(dy)
        sums = torch.ops.prior_fast.norm_gradient_sums(dy, x, scales)
        own = sums.float()
        _sum_over_ranks(sums, *ctx.ranks)
        dx = torch.ops.prior_fast.norm_gradient(dy, x, scales, sums, moments)
        wanted = ctx.needs_input_grad
        return dx, own[1] if wanted[1] else None, own[0] if wanted[2] else None, None, None, None


def _sum_over_ranks(x: Tensor, group: ProcessGroup | None, exchange: Exchange | None) -> None:
    if exchange is not None:
        exchange.sum_(x)
    else:
        torch.distributed.all_reduce(x, group=group)
