"""Dropout, the residual addition and the layer norm that follow a linear layer of BERT, in one pass.

Bytes of traffic for an element, x in bfloat16 and the residual stream in float32; "kept" is what the forward pass
writes for the backward pass only:

    kept                                              forward                 backward                     sum
    mask, normalized row (what torch.compile makes)   2 + 4 -> 4 + 2 + 1 + 4  4 + 2 + 1 + 4 -> 4 + 2        34
    the sum before the norm, float32                  2 + 4 -> 4 + 2 + 4      4 + 2 + 4 -> 4 + 2            32
    nothing: x and residual are read again            2 + 4 -> 4 + 2          4 + 2 + 2 + 4 -> 4 + 2        30
    nothing: the output is read again                 2 + 4 -> 4 + 2          4 + 2 + 4 -> 4 + 2            28

The last computes the normalized row as (y - bias) / weight, which has no digits where a weight is small. The op does
the one before it: the backward pass adds up x and the residual again, with dropout's mask made again. Its sum is the
forward pass's, bit for bit. Of each row its mean and its deviation are kept. A residual stream in bfloat16 takes
2 + 2 -> 2 forward and 2 + 2 + 2 -> 2 + 2 backward, 16 bytes. Its one result has two readers, the next product and the
next addition, whose gradients autograd adds before: 2 + 2 -> 2 more, 22 bytes in all. A second tensor for the second
reader, with the sum in the op, would take 20, but would be kept for the backward pass.

Dropout's mask is a contract of all backends. Row n, column c of the flattened rows [N, C] has word c % 4 of
Philox4x32-10, with the seed as its key, the 64-bit number n ceil(C / 4) + c // 4 in the low half of its counter, and
the stream in the high half. Four neighbours share a call, since the call for each element would take longer than the
reading and writing. The element is dropped where the word's upper 24 bits are below round(dropout 2**24). Streams of
one seed are independent: a network draws one seed for all of its layers.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.checks import (
    FLOAT_DTYPES,
    check_device,
    check_dropout,
    check_dtype,
    check_is_tensor,
    check_length,
    check_number,
    check_shape,
)
from prior_fast.ops.common.philox import philox_uint32, seed_tensor
from prior_fast.ops.common.precision import accumulation_dtype, full_precision
from prior_fast.ops.common.triton import with_triton

__all__ = ["dropout_add_layer_norm"]

# A program holds a row in registers.
MOST_COLUMNS = 4096


def dropout_add_layer_norm_reference(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    linear_bias: Tensor | None,
    eps: float,
    dropout: float,
    seed: Tensor | None,
    stream: int,
) -> tuple[Tensor, Tensor]:
    """`dropout_add_layer_norm` in plain PyTorch."""
    dtype, columns = accumulation_dtype(x), x.shape[-1]
    with full_precision(x):
        added = x.to(dtype) if linear_bias is None else x.to(dtype) + linear_bias
        if seed is not None:
            kept = _kept(seed, x.numel() // columns, columns, _threshold(dropout), stream)
            added = added * kept.view(x.shape) * (1 / (1 - dropout))
        y = F.layer_norm(added + residual.to(dtype), (columns,), weight, bias, eps)
    return y.to(residual.dtype), y.to(x.dtype)


# A custom op: torch.compile would inline each round of Philox twice into the next, and would not end.
@torch.library.custom_op("prior_fast::dropout_kept", mutates_args=())
def _kept(seed: Tensor, rows: int, columns: int, threshold: int, stream: int) -> Tensor:
    """Which elements dropout keeps, [rows, columns] bool."""
    groups = -(-columns // 4)
    counter = torch.arange(rows * groups, device=seed.device, dtype=torch.int64)
    words = torch.stack(philox_uint32(seed, counter, stream), dim=1).view(rows, 4 * groups)
    return (words[:, :columns] >> 8) >= threshold


@_kept.register_fake
def _(seed: Tensor, rows: int, columns: int, threshold: int, stream: int) -> Tensor:
    return seed.new_empty(rows, columns, dtype=torch.bool)


def _threshold(dropout: float) -> int:
    return round(dropout * 2**24)


@torch.library.custom_op("prior_fast::dropout_add_layer_norm", mutates_args=())
def _dropout_add_layer_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    linear_bias: Tensor | None,
    seed: Tensor | None,
    stream: int,
    dropout: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """y like residual; y in the dtype of x, empty if that is the same; statistics [2, N]."""
    from prior_fast.kernels.dropout_add_layer_norm import dropout_add_layer_norm_fwd

    floats: Any = [None if t is None else t.contiguous() for t in (x, residual, weight, bias, linear_bias)]
    arguments: Any = (*floats, seed, stream, _threshold(dropout), 1 / (1 - dropout), eps)
    return dropout_add_layer_norm_fwd(*arguments)


@_dropout_add_layer_norm.register_fake
def _(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    linear_bias: Tensor | None,
    seed: Tensor | None,
    stream: int,
    dropout: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    low = x.new_empty(x.shape if x.dtype != residual.dtype else 0)
    return residual.new_empty(x.shape), low, x.new_empty(2, x.shape[0], dtype=torch.float32)


@torch.library.custom_op("prior_fast::dropout_add_layer_norm_backward", mutates_args=())
def _dropout_add_layer_norm_backward(
    dy: Tensor | None,
    dlow: Tensor | None,
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    linear_bias: Tensor | None,
    seed: Tensor | None,
    stats: Tensor,
    stream: int,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dresidual, and the gradients of the parameters [2 or 3, C]."""
    from prior_fast.kernels.dropout_add_layer_norm import dropout_add_layer_norm_bwd

    floats: Any = [None if t is None else t.contiguous() for t in (dy, dlow, x, residual, weight, linear_bias)]
    arguments: Any = (*floats, seed, stats, stream, _threshold(dropout), 1 / (1 - dropout))
    return dropout_add_layer_norm_bwd(*arguments)


@_dropout_add_layer_norm_backward.register_fake
def _(
    dy: Tensor | None,
    dlow: Tensor | None,
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    linear_bias: Tensor | None,
    seed: Tensor | None,
    stats: Tensor,
    stream: int,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    sums = x.new_empty(2 if linear_bias is None else 3, x.shape[1], dtype=torch.float32)
    return x.new_empty(x.shape), residual.new_empty(x.shape), sums


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, residual, weight, _, linear_bias, seed, ctx.stream, ctx.dropout, _ = inputs
    _, low, stats = output
    ctx.two_outputs = x.dtype != residual.dtype
    ctx.save_for_backward(x, residual, weight, linear_bias, seed, stats)
    ctx.mark_non_differentiable(stats, *([] if ctx.two_outputs else [low]))
    # The gradient of an unused output is then None, and the kernel does not read it.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, dlow: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    dlow = dlow if ctx.two_outputs else None
    if dy is None and dlow is None:
        return (None,) * 9
    dx, dresidual, sums = _dropout_add_layer_norm_backward(dy, dlow, *ctx.saved_tensors, ctx.stream, ctx.dropout)
    dweight, dbias, *dlinear = sums.unbind()
    return dx, dresidual, dweight, dbias, dlinear[0] if dlinear else None, None, None, None, None


_dropout_add_layer_norm.register_autograd(_backward, setup_context=_setup_context)


def dropout_add_layer_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    linear_bias: Tensor | None = None,
    *,
    eps: float = 1e-12,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    stream: int = 0,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """layer_norm(dropout(x + linear_bias) + residual), for the residual stream and for the next product.

    The formula is BERT's (Devlin et al., 2019, after Vaswani et al., "Attention is all you need", 2017, sections 3.1
    and 5.4). Under autocast PyTorch computes the layer norm in float32, and rounds the result once more for each
    product that reads it. The op returns both, and adds their gradients where it uses them. Given a product without
    its bias, it also computes that bias's gradient, in its pass over the rows. All arithmetic is float32 (float64 for
    float64).

    Args:
        x: [..., C] the product, 1 <= C.
        residual: [..., C] like x, of the dtype of `x` or float32.
        weight, bias: [C] of the layer norm, float32 (float64 for float64).
        linear_bias: [C] of the same dtype, added to x; None: 0.
        eps: added to the variance.
        dropout: the probability of 0 instead of x + linear_bias, 0 <= dropout < 1; others are divided by 1 - dropout.
        seed: of the mask, an int64 value: an int, or a tensor of one element on the device of `x`. Under torch.compile
            pass a tensor, since a new int may cause a recompilation. None is allowed only for dropout = 0.
        stream: which of the seed's masks, 0 or more. Each layer of a network takes its own.
        backend: see `prior_fast.ops.common.backend.resolve_backend`.

    Returns:
        The result [..., C] in the dtype of `residual` and in the dtype of `x`; if these are the same, one tensor twice.
        Both are differentiable in x, residual, weight, bias and linear_bias.

    Raises:
        ValueError: a shape, dtype, device, probability, seed or backend that does not fit; the message names it.
    """
    _check(x, residual, weight, bias, linear_bias)
    check_number("eps", eps)
    check_length("stream", stream)
    check_dropout(dropout, seed, "x", x)
    key = seed_tensor(seed, x.device) if dropout and seed is not None else None
    available = with_triton(x)
    if x.shape[-1] > MOST_COLUMNS:
        available["triton"] = f"it takes at most {MOST_COLUMNS} columns, not {x.shape[-1]}"
    if resolve_backend("dropout_add_layer_norm", backend, available) == "triton":
        rows = (t.reshape(-1, t.shape[-1]) for t in (x, residual))
        y, low, _ = _dropout_add_layer_norm(*rows, weight, bias, linear_bias, key, stream, dropout, eps)
        y = y.view(x.shape)
        return y, y if x.dtype == residual.dtype else low.view(x.shape)
    y, low = dropout_add_layer_norm_reference(x, residual, weight, bias, linear_bias, eps, dropout, key, stream)
    return y, y if x.dtype == residual.dtype else low


def _check(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, linear_bias: Tensor | None) -> None:
    check_is_tensor("x", x, "... C")
    check_dtype("x", x, FLOAT_DTYPES)
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"x has shape {list(x.shape)}, wanted [..., C] with at least one column")
    check_is_tensor("residual", residual, "... C")
    check_dtype("residual", residual, (x.dtype, accumulation_dtype(x)))
    if residual.shape != x.shape:
        raise ValueError(f"residual has shape {list(residual.shape)}, wanted {list(x.shape)}, the shape of x")
    check_device("residual", residual, "x", x)
    vectors: dict[str, Any] = {"weight": weight, "bias": bias, "linear_bias": linear_bias}
    for name, vector in vectors.items():
        if vector is not None or name != "linear_bias":
            check_is_tensor(name, vector, "C")
            check_dtype(name, vector, (accumulation_dtype(x),))
            check_shape(name, vector, ["C"], {"C": (x.shape[-1], "x")})
            check_device(name, vector, "x", x)
