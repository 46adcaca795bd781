"""Batch normalization with the statistics of the batch joined over all ranks, on any device."""

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from prior_fast.model.exchange import Exchange
from prior_fast.model.joined_norm import all_have_kernels, joined_norm
from prior_fast.model.norm_kernels import takes
from prior_fast.model.projection import RowNorm
from prior_fast.model.rectified_norm import track


class _SumOverRanks(torch.autograd.Function):
    """The sum of the ranks' tensors, on every rank. torch's differentiable all-reduce breaks torch.compile's graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup | None) -> Tensor:
        ctx.group = group
        total = x.clone()
        torch.distributed.all_reduce(total, group=group)
        # A copy: compiled by torch 2.11, a tensor written in place has no gradient.
        return total.clone()

    @staticmethod
    def backward(ctx: Any, dtotal: Tensor) -> tuple[Tensor, None]:
        total = dtotal.clone()
        torch.distributed.all_reduce(total, group=ctx.group)
        return total, None


class _Joined:
    """Like torch.nn.SyncBatchNorm, which runs on GPUs only. Ranks may hold different numbers of rows.

    Rows of contiguous channels are normalized by the library's kernels, where it is built. Other layouts and compiled
    graphs use torch's operations; all ranks choose alike.
    """

    group: ProcessGroup | None = None
    kernels = False  # whether every rank has the kernels
    exchange: Exchange | None = None

    def forward(self: nn.BatchNorm2d, x: Tensor, tracked: bool = True) -> Tensor:  # type: ignore[misc]
        channels_last = isinstance(self, RowNorm)
        if not self.training:
            return super().forward(x)  # type: ignore[misc]
        # A single row is contiguous with any stride, and ranks must choose alike: rows are made contiguous.
        dense = x.flatten(0, -2).contiguous() if channels_last else x
        if self.kernels and takes(dense, (self.weight, self.bias)):
            ranks: Any = (self.group, self.exchange)
            y, mean, unbiased = joined_norm(dense, self.weight, self.bias, self.eps, *ranks)
            if tracked:
                track(self, mean, unbiased)
            return y if y.shape == x.shape else y.view(x.shape)
        dims = tuple(range(x.dim() - 1)) if channels_last else (0, 2, 3)
        wide = x.float()
        own = wide.sum(dims)
        counted = torch.stack([own, torch.full_like(own, wide.numel() // own.numel())])
        sums = _SumOverRanks.apply(counted, self.group)
        mean, rows = sums[0] / sums[1].detach(), sums[1].detach()
        # From centered rows: the mean of the squares minus the square of the mean loses digits.
        center = mean if channels_last else mean[:, None, None]
        variance = _SumOverRanks.apply((wide - center).square().sum(dims), self.group) / rows
        if tracked:
            track(self, mean, variance * rows / (rows - 1))
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        if not channels_last:
            scale, shift = scale[:, None, None], shift[:, None, None]
        return (wide * scale + shift).to(x.dtype)


class JoinedBatchNorm2d(_Joined, nn.BatchNorm2d):
    """[B, C, h, w] -> [B, C, h, w]."""


class JoinedRowNorm(_Joined, RowNorm):
    """[..., C] -> [..., C]."""


class SyncRowNorm(nn.SyncBatchNorm):
    """torch.nn.SyncBatchNorm for rows with any leading dimensions: [..., C] -> [..., C]."""

    def forward(self, x: Tensor, tracked: bool = True) -> Tensor:
        rows = x.flatten(0, -2)
        if tracked or not self.training:
            return super().forward(rows).view(x.shape)
        # torch's layer then normalizes with the joined statistics and does not update the running ones.
        self.track_running_stats = False
        normalized = super().forward(rows).view(x.shape)
        self.track_running_stats = True
        return normalized


def join_batch_norms(module: nn.Module, group: ProcessGroup, exchange: Exchange | None = None) -> nn.Module:
    """Make the batch normalizations of `module` use statistics over the ranks of `group`; changes `module` in place.

    They become torch's synchronized layers on GPUs and `_Joined` layers on the CPU. Parameters, buffers and their names
    do not change. Every rank of `group` must call it.

    exchange: between the ranks of `group`, if they are processes of one machine.
    """
    kernels = False
    if next(module.parameters()).is_cuda:
        joined: dict[type, type] = {RowNorm: SyncRowNorm, nn.BatchNorm2d: nn.SyncBatchNorm}
        name = "process_group"
    else:
        joined = {RowNorm: JoinedRowNorm, nn.BatchNorm2d: JoinedBatchNorm2d}
        name = "group"
        kernels = all_have_kernels(group)
    for child in module.modules():
        if type(child) in joined:
            child.__class__ = joined[type(child)]
            setattr(child, name, group)
            if isinstance(child, _Joined):
                child.kernels, child.exchange = kernels, exchange
    return module
