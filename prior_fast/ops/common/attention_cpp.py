"""The attention ops of csrc/packed_attention_cpu.cpp and their gradients.

Not in the ops' own files, since the ops share the kernels and the quick check of arguments. On two CPU cores, a forward
and backward pass without work took 170 us with torch.library.register_autograd and 50 us with a
torch.autograd.Function, less than the work of a small batch.
"""

from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from prior_fast.ops.common.attention import ACTIVATIONS, with_dense_rows
from prior_fast.ops.common.cpp import offsets_fit, surely_serves
from prior_fast.ops.common.triton import wants_gradient

for _schema in (
    "sigmoid_attention_cpp(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens_q, Tensor cu_seqlens_k, float? scale, "
    "float bias, bool softmax, int lanes=0) -> Tensor",
    "sigmoid_attention_cpp_backward(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor cu_seqlens_q, "
    "Tensor cu_seqlens_k, float? scale, float bias, bool softmax, int lanes=0) -> (Tensor, Tensor, Tensor)",
    "attention_weights_cpp(Tensor q, Tensor k, Tensor cu_seqlens_q, Tensor cu_seqlens_k, SymInt max_seqlen_q, "
    "SymInt max_seqlen_k, float? scale, float bias, bool softmax, int lanes=0) -> Tensor",
    "attention_weights_cpp_backward(Tensor dweights, Tensor q, Tensor k, Tensor cu_seqlens_q, Tensor cu_seqlens_k, "
    "float? scale, float bias, bool softmax, int lanes=0) -> (Tensor, Tensor)",
):
    _name, _, _rest = _schema.partition("(")
    torch.library.define(f"prior_fast::{_name}", f"({_rest}")


@torch.library.register_fake("prior_fast::sigmoid_attention_cpp")
def _fake_attention(q: Tensor, k: Tensor, v: Tensor, *options: Any) -> Tensor:
    return q.new_empty(q.shape[0], q.shape[1], v.shape[2])


@torch.library.register_fake("prior_fast::sigmoid_attention_cpp_backward")
def _fake_attention_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


@torch.library.register_fake("prior_fast::attention_weights_cpp")
def _fake_weights(
    q: Tensor, k: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_q: int, max_k: int, *options: Any
) -> Tensor:
    return q.new_empty(cu_seqlens_q.shape[0] - 1, q.shape[1], max_q, max_k)


@torch.library.register_fake("prior_fast::attention_weights_cpp_backward")
def _fake_weights_backward(dweights: Tensor, q: Tensor, k: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape)


_ATTENTION = torch.ops.prior_fast.sigmoid_attention_cpp.default
_ATTENTION_BACKWARD = torch.ops.prior_fast.sigmoid_attention_cpp_backward.default
_WEIGHTS = torch.ops.prior_fast.attention_weights_cpp.default
_WEIGHTS_BACKWARD = torch.ops.prior_fast.attention_weights_cpp_backward.default


class _SigmoidAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        ctx.save_for_backward(*arguments[:5])
        ctx.options = arguments[5:]
        out: Tensor = _ATTENTION(*arguments)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _ATTENTION_BACKWARD(with_dense_rows(dout), *ctx.saved_tensors, *ctx.options)
        return *gradients, None, None, None, None, None


def _setup_weights(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[6:]


def _backward_of_weights(ctx: Any, dweights: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _WEIGHTS_BACKWARD(dweights.contiguous(), *ctx.saved_tensors, *ctx.options)
    return *gradients, *[None] * (4 + len(ctx.options))


# A torch.autograd.Function would be compiled again for other values of max_seqlen_q and max_seqlen_k.
torch.library.register_autograd("prior_fast::attention_weights_cpp", _backward_of_weights, setup_context=_setup_weights)


def surely_fits(
    tensors: tuple[Tensor, ...],
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    longest: tuple[int, int],
    numbers: tuple[float | None, float],
    activation: str,
    wanted: str | None,
) -> bool:
    """Whether "cpp" serves a call of which all arguments are right; `tensors` are q, k and, if there are values, v.

    See `surely_serves`: False leaves the decision to the checks.
    """
    if not surely_serves(wanted, *tensors):
        return False
    q, k = tensors[:2]
    rows_k = k.shape[:2]
    return (
        q.dim() == k.dim() == 3
        and q.shape[1:] == k.shape[1:]
        and (len(tensors) < 3 or (tensors[2].dim() == 3 and tensors[2].shape[:2] == rows_k))
        and type(longest[0]) is type(longest[1]) is int
        and type(numbers[0]) in (float, NoneType)
        and type(numbers[1]) is float
        and activation in ACTIVATIONS
        and offsets_fit(cu_seqlens_q, q.shape[0], longest[0])
        and offsets_fit(cu_seqlens_k, rows_k[0], longest[1])
        and cu_seqlens_q.shape == cu_seqlens_k.shape
    )


def sigmoid_attention_cpp(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    scale: float | None,
    bias: float,
    activation: str,
) -> Tensor:
    """`sigmoid_attention` on threads of the CPU; float32 and bfloat16."""
    tensors = with_dense_rows(q), with_dense_rows(k), with_dense_rows(v)
    arguments = (*tensors, cu_seqlens_q.contiguous(), cu_seqlens_k.contiguous(), scale, bias, activation == "softmax")
    out: Tensor = (_SigmoidAttention.apply if wants_gradient(q, k, v) else _ATTENTION)(*arguments)
    return out


def attention_weights_cpp(
    q: Tensor,
    k: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float | None,
    bias: float,
    activation: str,
) -> Tensor:
    """`attention_weights` on threads of the CPU; float32 and bfloat16."""
    offsets = cu_seqlens_q.contiguous(), cu_seqlens_k.contiguous()
    options = max_seqlen_q, max_seqlen_k, scale, bias, activation == "softmax"
    out: Tensor = _WEIGHTS(with_dense_rows(q), with_dense_rows(k), *offsets, *options)
    return out
