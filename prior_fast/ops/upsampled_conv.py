"""A 3x3 convolution of a nearest-neighbour x2 upsampled image, which is never stored.

Each pixel of the upsampled image is one of four copies, so the nine weights multiply only four different pixels. A 4x4
transposed convolution of stride 2 and padding 1 computes the same sums with 2.25 times fewer multiplications. Its
kernel is a sum of up to four weights, which is computed in float32 and rounded once.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.checks import FLOAT_DTYPES, check_device, check_dtype, check_is_tensor, check_shape
from prior_fast.ops.common.precision import accumulation_dtype, full_precision
from prior_fast.ops.common.triton import with_triton

__all__ = ["upsampled_conv"]


def upsampled_kernel(weight: Tensor) -> Tensor:
    """[out, in, 3, 3] -> [in, out, 4, 4]: the full convolution of the mirrored weights with a 2x2 kernel of ones."""
    padded = F.pad(weight.flip(2, 3), (1, 1, 1, 1))
    kernel = padded[..., :4, :4] + padded[..., 1:, :4] + padded[..., :4, 1:] + padded[..., 1:, 1:]
    return kernel.transpose(0, 1)


def upsampled_conv_reference(
    x: Tensor, kernel: Tensor, bias: Tensor | None, relu: bool, moments: bool
) -> tuple[Tensor, Tensor | None]:
    """`upsampled_conv` in plain PyTorch; kernel [in, out, 4, 4]."""
    with full_precision(x):
        y = F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
    y = F.relu(y) if relu else y
    return y, _moments(y) if moments else None


def _moments(y: Tensor) -> Tensor:
    variance, mean = torch.var_mean(y.detach().to(accumulation_dtype(y)), (0, 2, 3), correction=0)
    return torch.stack([mean, variance])


@torch.library.custom_op("prior_fast::upsampled_conv", mutates_args=())
def _upsampled_conv(x: Tensor, taps: Tensor, bias: Tensor | None, relu: bool, moments: bool) -> tuple[Tensor, Tensor]:
    """x [B, H, W, C], taps [4, C, 4, N] -> y [B, 2H, 2W, N]; moments [2, N], empty if they are not wanted."""
    from prior_fast.kernels.upsampled_conv import upsampled_conv_fwd

    bias = None if bias is None else bias.contiguous()
    return upsampled_conv_fwd(x.contiguous(), taps.contiguous(), bias, relu, moments)


@_upsampled_conv.register_fake
def _(x: Tensor, taps: Tensor, bias: Tensor | None, relu: bool, moments: bool) -> tuple[Tensor, Tensor]:
    batch, height, width, _ = x.shape
    channels = taps.shape[3]
    y = x.new_empty(batch, 2 * height, 2 * width, channels)
    return y, x.new_empty((2, channels) if moments else (0,), dtype=torch.float32)


@torch.library.custom_op("prior_fast::upsampled_conv_backward", mutates_args=())
def _upsampled_conv_backward(dy: Tensor, taps: Tensor) -> Tensor:
    """The gradient of x."""
    from prior_fast.kernels.upsampled_conv import upsampled_conv_bwd

    return upsampled_conv_bwd(dy.contiguous(), taps.contiguous())


@_upsampled_conv_backward.register_fake
def _(dy: Tensor, taps: Tensor) -> Tensor:
    batch, height, width, _ = dy.shape
    return dy.new_empty(batch, height // 2, width // 2, taps.shape[1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, taps, bias, relu, _ = inputs
    y, moments = output
    ctx.save_for_backward(x, taps, y if relu else None)
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.mark_non_differentiable(moments)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 5
    x, taps, y = ctx.saved_tensors
    if y is not None:
        dy = torch.ops.aten.threshold_backward(dy, y, 0)
    wants_x, wants_taps, wants_bias, *_ = ctx.needs_input_grad
    dx = _upsampled_conv_backward(dy, taps) if wants_x else None
    dtaps = _gradient_of_taps(dy, x, taps) if wants_taps else None
    dbias = dy.sum((0, 1, 2), dtype=accumulation_dtype(dy)).to(ctx.bias_dtype) if wants_bias else None
    return dx, dtaps, dbias, None, None


def _gradient_of_taps(dy: Tensor, x: Tensor, taps: Tensor) -> Tensor:
    """torch's: a product over the millions of pixels, which cuDNN splits into parts."""
    dy, x, kernel = dy.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), taps.permute(1, 3, 0, 2)
    options = ([2, 2], [1, 1], [1, 1], True, [0, 0], 1, [False, True, False])
    dkernel = torch.ops.aten.convolution_backward(dy, x, kernel, None, *options)[1]
    return dkernel.permute(2, 0, 3, 1).contiguous()


_upsampled_conv.register_autograd(_backward, setup_context=_setup_context)


def upsampled_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    relu: bool = False,
    moments: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """conv2d(upsample(x), weight, bias, padding=1) with nearest-neighbour x2 upsampling: the decoder's block.

    Blocks of upsampling and convolutions reconstruct the image (supplement 2.3; the released code upsamples).

    The moments are those of the rounded result. They have no gradient of their own: a normalization that takes them
    differentiates its own formula, in which mean and variance are functions of the result, as batch normalization does.

    Args:
        x: [B, C, H, W] with at least one channel and pixel. The kernels take channels innermost
            (torch.channels_last), and copy x from another layout.
        weight: [N, C, 3, 3] of the dtype of `x`, or float32 (float64 for float64).
        bias: [N] like `weight`, or None.
        relu: whether to set negative numbers of the result to 0.
        moments: whether to return mean and variance of the result, too.
        backend: see `prior_fast.ops.common.backend.resolve_backend`. The default is the reference, also on GPUs.

    Returns:
        [B, N, 2H, 2W] of the dtype of `x`, differentiable in x, weight and bias. With `moments`, a pair of it and
        [2, N] float32 (float64 for float64): mean and biased variance of each channel, not differentiable; NaN for an
        empty batch.

    Raises:
        ValueError: a shape, dtype, device or backend that does not fit; the message names it.
    """
    _check(x, weight, bias)
    with full_precision(x):
        kernel = upsampled_kernel(weight.to(accumulation_dtype(x))).to(x.dtype)
        bias = None if bias is None else bias.to(x.dtype)
    if resolve_backend("upsampled_conv", backend, with_triton(x, fastest=False)) == "triton":
        # The layout that both passes read without gaps.
        taps = kernel.permute(2, 0, 3, 1).contiguous()
        y, found = _upsampled_conv(x.permute(0, 2, 3, 1).contiguous(), taps, bias, relu, moments)
        y = y.permute(0, 3, 1, 2)
    else:
        y, found = upsampled_conv_reference(x, kernel, bias, relu, moments)
    return (y, found) if moments else y


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    sizes: dict[str, tuple[int, str]] = {}
    check_is_tensor("x", x, "B C H W")
    check_dtype("x", x, FLOAT_DTYPES)
    check_shape("x", x, ["B", "C", "H", "W"], sizes)
    if 0 in x.shape[1:]:
        raise ValueError(f"x has shape {list(x.shape)}, wanted [B, C, H, W] with at least one channel and pixel")
    arguments: tuple[tuple[str, Any, str], ...] = (("weight", weight, "N C 3 3"), ("bias", bias, "N"))
    for name, value, letters in arguments:
        if value is None and name == "bias":
            continue
        check_is_tensor(name, value, letters)
        check_dtype(name, value, (x.dtype, accumulation_dtype(x)))
        check_shape(name, value, letters.split(), sizes | {"3": (3, "a 3x3 convolution")})
        check_device(name, value, "x", x)
        sizes |= {"N": (weight.shape[0], "weight")}
