"""Batch normalization of images with the ReLU before or after it, and the addition of a residual."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.checks import check_device, check_dtype, check_is_tensor, check_number, check_shape
from prior_fast.ops.common.precision import accumulation_dtype
from prior_fast.ops.common.triton import with_triton

__all__ = ["batch_norm_relu"]

ACTIVATIONS = {"none": 0, "before": 1, "after": 2}


def batch_norm_relu_reference(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str,
    channels: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """`batch_norm_relu` in plain PyTorch."""
    dtype = accumulation_dtype(x)
    wide = x[:, :channels].to(dtype)
    wide = wide.relu() if activation == "before" else wide
    variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
    scale = torch.rsqrt(variance + eps) if weight is None else torch.rsqrt(variance + eps) * weight
    y = (wide - mean[:, None, None]) * scale[:, None, None]
    y = y if bias is None else y + bias[:, None, None]
    y = y if residual is None else y + residual
    y = (y.relu() if activation == "after" else y).to(x.dtype)
    rows = x.numel() // x.shape[1]
    unbiased = variance.detach() * (rows / (rows - 1))
    y = F.pad(y, (0, 0, 0, 0, 0, width - channels)) if width > channels else y
    return y.contiguous(memory_format=torch.channels_last), mean.detach(), unbiased


@torch.library.custom_op("prior_fast::batch_norm_relu", mutates_args=())
def _batch_norm_relu(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: int,
    channels: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    from prior_fast.kernels.batch_norm_relu import batch_norm_relu_fwd

    weight, bias = (None if p is None else p.contiguous() for p in (weight, bias))
    residual = None if residual is None else _even(residual)
    return batch_norm_relu_fwd(_even(x), weight, bias, residual, eps, activation, channels, width)


@_batch_norm_relu.register_fake
def _(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: int,
    channels: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    return _images(x, width), x.new_empty((2, channels), dtype=torch.float32)


@torch.library.custom_op("prior_fast::batch_norm_relu_backward", mutates_args=())
def _batch_norm_relu_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    moments: Tensor,
    y: Tensor | None,
    eps: float,
    activation: int,
) -> tuple[Tensor, Tensor, Tensor]:
    from prior_fast.kernels.batch_norm_relu import batch_norm_relu_bwd

    weight, bias = (None if p is None else p.contiguous() for p in (weight, bias))
    dx, sums, dresidual = batch_norm_relu_bwd(_even(dy), _even(x), weight, bias, moments, y, eps, activation)
    return dx, sums, x.new_empty(0) if dresidual is None else dresidual


@_batch_norm_relu_backward.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    moments: Tensor,
    y: Tensor | None,
    eps: float,
    activation: int,
) -> tuple[Tensor, Tensor, Tensor]:
    dresidual = x.new_empty(0) if y is None else _images(x, moments.shape[1])
    return _images(x, x.shape[1]), torch.empty_like(moments), dresidual


def _images(x: Tensor, channels: int) -> Tensor:
    """An empty tensor like images `x`, of so many channels, which lie innermost and dense."""
    batch, _, height, width = x.shape
    shape = batch, channels, height, width
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _even(x: Tensor) -> Tensor:
    """`x`, or a copy if its pixels lie unevenly in memory or its channels are not innermost."""
    from prior_fast.kernels.batch_norm_relu import row_stride

    return x if row_stride(x) is not None else _images(x, x.shape[1]).copy_(x)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, residual, eps, activation, _, _ = inputs
    y, moments = output
    ctx.mark_non_differentiable(moments)
    ctx.set_materialize_grads(False)
    # With a residual the sign of the sum is that of y, which the next layer keeps as well. Else x gives it again.
    rectified = activation == ACTIVATIONS["after"] and residual is not None
    ctx.save_for_backward(x, weight, bias, moments, y if rectified else None)
    ctx.eps, ctx.activation, ctx.added = eps, activation, residual is not None


def _backward(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, bias, moments, y = ctx.saved_tensors
    if dy is None:
        return (None,) * 8
    dx, sums, dresidual = _batch_norm_relu_backward(dy, x, weight, bias, moments, y, ctx.eps, ctx.activation)
    if not ctx.added:
        added = None
    elif y is None:
        added = dy[:, : moments.shape[1]]
    else:
        added = dresidual
    dweight, dbias = None if weight is None else sums[1], None if bias is None else sums[0]
    return dx, dweight, dbias, added, None, None, None, None


_batch_norm_relu.register_autograd(_backward, setup_context=_setup_context)


def batch_norm_relu(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    activation: Literal["none", "before", "after"] = "none",
    residual: Tensor | None = None,
    channels: int | None = None,
    width: int | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize each channel with its mean and variance over the batch, with a ReLU before or after it.

    u = x, or ReLU(x) for "before"; y = (u - mean) / sqrt(variance + eps) * weight + bias + residual, or its ReLU for
    "after". The image encoder has "after" (ResNet, supplement 2.2), the image decoder "before" (supplement 2.3) or
    "after" (released).

    Images whose channels are innermost in memory are read as they lie, also if they are the first channels of wider
    ones. Others are copied.

    Args:
        x: [B, X, h, w].
        weight: [C] float32 (float64 for float64 images); None is 1.
        bias: [C], like `weight`; None is 0.
        eps: added to the variance.
        activation: where the ReLU is: "none", "before" or "after".
        residual: [B, C, h, w], like x; added before the ReLU. Not with "before".
        channels: C, the first channels of x, which are normalized; None is X. The others are padding for the layer
            before: they are not read, and their gradient is 0.
        width: Y, the channels of y; None is C. Those from C on are 0: padding for the layer after. Their gradient is
            not read.
        backend: see `prior_fast.ops.common.backend.resolve_backend`.

    Returns:
        y [B, Y, h, w] of the dtype of `x`, dense with the channels innermost; the mean and the unbiased variance of u,
        [C] float32 (float64 for float64 images), without a gradient. Differentiable in x, weight, bias and residual.

    Raises:
        ValueError: a shape, dtype, device, number or backend that does not fit, or a single pixel; the message names
            it.
    """
    channels, width = _check(x, weight, bias, eps, activation, residual, channels, width)
    if resolve_backend("batch_norm_relu", backend, with_triton(x)) == "triton":
        number = ACTIVATIONS[activation]
        y, moments = _batch_norm_relu(x, weight, bias, residual, eps, number, channels, width)
        return y, moments[0], moments[1]
    return batch_norm_relu_reference(x, weight, bias, residual, eps, activation, channels, width)


def _check(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str,
    residual: Tensor | None,
    channels: int | None,
    width: int | None,
) -> tuple[int, int]:
    """C and Y.

    Raises:
        ValueError: as in `batch_norm_relu`.
    """
    check_is_tensor("x", x, "B X h w")
    check_dtype("x", x, (torch.float32, torch.bfloat16, torch.float16, torch.float64))
    check_shape("x", x, ["B", "X", "h", "w"], {})
    batch, given, height, pixels = x.shape
    channels = given if channels is None else channels
    width = channels if width is None else width
    if not 1 <= channels <= given:
        raise ValueError(f"channels is {channels}, wanted 1 to {given}, the channels of x")
    if width < channels:
        raise ValueError(f"width is {width}, wanted {channels} or more, the channels that are normalized")
    if batch * height * pixels < 2:
        raise ValueError(f"x has shape {list(x.shape)}, wanted more than 1 value per channel")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            check_is_tensor(name, value, "C")
            check_dtype(name, value, (accumulation_dtype(x),))
            check_shape(name, value, ["C"], {"C": (channels, "x")})
            check_device(name, value, "x", x)
    if residual is not None:
        check_is_tensor("residual", residual, "B C h w")
        check_dtype("residual", residual, (x.dtype,))
        sizes = {"B": (batch, "x"), "C": (channels, "x"), "h": (height, "x"), "w": (pixels, "x")}
        check_shape("residual", residual, ["B", "C", "h", "w"], sizes)
        check_device("residual", residual, "x", x)
    check_number("eps", eps)
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r}, wanted one of {', '.join(ACTIVATIONS)}")
    if residual is not None and activation == "before":
        raise ValueError("residual does not go with activation='before': add it to the result")
    return channels, width
