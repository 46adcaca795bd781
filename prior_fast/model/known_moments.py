"""Batch normalization of images whose mean and variance are known, since what made them computed the moments.

torch's layer reads the whole image for its statistics and again to normalize it. Here one pass normalizes. The moments
are functions of the image, so the gradient is that of torch's layer.
"""

from typing import Any

import torch
from torch import Tensor, nn

from prior_fast.model.rectified_norm import track
from prior_fast.ops.common.precision import accumulation_dtype

PIXELS = (0, 2, 3)


def wants_moments(norm: nn.Module) -> bool:
    """Whether `norm` takes the moments of its input: torch's own layer, in training, with a fixed momentum."""
    return type(norm) is nn.BatchNorm2d and norm.training and norm.track_running_stats and norm.momentum is not None


def normalize_known(norm: nn.BatchNorm2d, x: Tensor, moments: Tensor) -> Tensor:
    """norm(x) of [B, C, h, w] in the dtype of x, for a layer that `wants_moments`.

    moments: [2, C] float32 (float64 for float64), mean and biased variance of x.
    """
    rows = _rows(x)
    if rows <= 1:
        return norm(x)  # torch raises its error
    y = _KnownMoments.apply(x, moments, norm.weight, norm.bias, norm.eps)
    mean, variance = moments.to(norm.running_mean.dtype)  # type: ignore[union-attr]
    track(norm, mean, variance * (rows / (rows - 1)))
    return y


class _KnownMoments(torch.autograd.Function):
    """Plain operations, which torch.compile fuses into one kernel forward, and into sums and a kernel backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, moments: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        ctx.save_for_backward(x, moments, weight)
        ctx.eps = eps
        ctx.bias_dtype = None if bias is None else bias.dtype
        centered, scale = _centered(x, moments), torch.rsqrt(moments[1] + eps)
        y = centered * _each(scale if weight is None else scale * weight)
        y = y if bias is None else y + _each(bias)
        # Compiled by torch 2.11, a result of a conversion that converts nothing has no gradient.
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, moments, weight = ctx.saved_tensors
        centered, scale = _centered(x, moments), torch.rsqrt(moments[1] + ctx.eps)
        wide = dy.to(centered.dtype)
        total, product = wide.sum(PIXELS), (wide * centered).sum(PIXELS)
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            rows = _rows(x)
            dx = wide - _each(total / rows) - centered * _each(product * scale.square() / rows)
            dx = (dx * _each(scale if weight is None else scale * weight)).to(x.dtype)
        if weight is not None and ctx.needs_input_grad[2]:
            dweight = (product * scale).to(weight.dtype)
        if ctx.bias_dtype is not None and ctx.needs_input_grad[3]:
            dbias = total.to(ctx.bias_dtype)
        return dx, None, dweight, dbias, None


def _centered(x: Tensor, moments: Tensor) -> Tensor:
    """x minus the mean: a large mean takes no digits of the products."""
    return x.to(accumulation_dtype(x)) - _each(moments[0])


def _each(values: Tensor) -> Tensor:
    """[C] -> [C, 1, 1], for all pixels of a channel."""
    return values[:, None, None]


def _rows(x: Tensor) -> int:
    """The values of a channel."""
    return x.shape[0] * x.shape[2] * x.shape[3]
