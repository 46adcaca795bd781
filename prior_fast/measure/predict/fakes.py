"""Results of the CPU's batch normalization for tensors without data, as in csrc/batch_norm_cpu.cpp."""

from typing import Any

import torch
from torch import Tensor

from prior_fast.model import norm_kernels  # noqa: F401  it defines the operations


def _no_data(*sizes: Any, like: Tensor, dtype: torch.dtype) -> Tensor:
    return like.new_empty(sizes, dtype=dtype)


@torch.library.register_fake("prior_fast::norm_moments")
def _(x: Tensor, channels: int, rank: int = 0, ranks: int = 1, activation: int = 0) -> Tensor:
    return _no_data(ranks, 1 + 2 * channels, like=x, dtype=torch.float64)


@torch.library.register_fake("prior_fast::norm_scales")
def _(moments: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return _no_data(5, (moments.shape[1] - 1) // 2, like=moments, dtype=torch.float32)


@torch.library.register_fake("prior_fast::norm_apply")
def _(x: Tensor, scales: Tensor, activation: int = 0, residual: Tensor | None = None) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("prior_fast::norm_gradient_sums")
def _(dy: Tensor, x: Tensor, scales: Tensor, activation: int = 0) -> Tensor:
    return _no_data(2, scales.shape[1], like=x, dtype=torch.float64)


@torch.library.register_fake("prior_fast::norm_gradient")
def _(dy: Tensor, x: Tensor, scales: Tensor, sums: Tensor, moments: Tensor, activation: int = 0) -> Tensor:
    return torch.empty_like(x)
