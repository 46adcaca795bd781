"""The attention ops of csrc/packed_attention_cpu.cpp and their gradients.

Not in the ops' own files, since the ops share the kernels and the quick check of arguments. On two CPU cores, a forward
and backward pass without work took 170 us with torch.library.register_autograd and 50 us with a
torch.autograd.Function, less than the work of a small batch.
"""

import os
from itertools import pairwise
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from prior_fast.ops.common import backend, checks
from prior_fast.ops.common.attention import ACTIVATIONS, with_dense_rows
from prior_fast.ops.common.cpp import with_cpp
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


class _SigmoidAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        ctx.save_for_backward(*arguments[:5])
        ctx.options = arguments[5:]
        out: Tensor = torch.ops.prior_fast.sigmoid_attention_cpp(*arguments)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        backward = torch.ops.prior_fast.sigmoid_attention_cpp_backward
        return *backward(with_dense_rows(dout), *ctx.saved_tensors, *ctx.options), *[None] * 5


def _setup_weights(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[6:]


def _backward_of_weights(ctx: Any, dweights: Tensor) -> tuple[Tensor | None, ...]:
    backward = torch.ops.prior_fast.attention_weights_cpp_backward
    gradients = backward(dweights.contiguous(), *ctx.saved_tensors, *ctx.options)
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

    It takes a quarter of the time of the checks that find what is wrong, which take longer than a small batch's
    attention. False if anything is unusual; the checks then decide.
    """
    q, k = tensors[:2]
    if wanted is not None or torch.compiler.is_compiling() or any(name in os.environ for name in _VARIABLES):
        return False
    if any(type(x) is not Tensor for x in (*tensors, cu_seqlens_q, cu_seqlens_k)) or with_cpp(q, {}).get("cpp", ""):
        return False
    dtype, device, rows_k = q.dtype, q.device, k.shape[:2]
    return (
        q.dim() == k.dim() == 3
        and q.shape[1:] == k.shape[1:]
        and all(x.dim() == 3 and x.shape[:2] == rows_k for x in tensors[2:])
        and all(x.dtype == dtype and x.device == device for x in tensors[1:])
        and all(type(x) is int for x in longest)
        and type(numbers[0]) in (float, NoneType)
        and type(numbers[1]) is float
        and activation in ACTIVATIONS
        and cu_seqlens_q.shape == cu_seqlens_k.shape
        and _offsets_fit(cu_seqlens_q, q, longest[0])
        and _offsets_fit(cu_seqlens_k, k, longest[1])
    )


_VARIABLES = (checks.ENVIRONMENT_VARIABLE, backend.ENVIRONMENT_VARIABLE)


def _offsets_fit(cu_seqlens: Tensor, x: Tensor, longest: int) -> bool:
    if cu_seqlens.dtype not in checks.OFFSET_DTYPES or cu_seqlens.device != x.device or cu_seqlens.dim() != 1:
        return False
    offsets = cu_seqlens.tolist()
    return (
        bool(offsets)
        and offsets[0] == 0
        and offsets[-1] == x.shape[0]
        and all(0 <= after - before <= longest for before, after in pairwise(offsets))
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
    differentiated = wants_gradient(q, k, v)
    out: Tensor = (_SigmoidAttention.apply if differentiated else torch.ops.prior_fast.sigmoid_attention_cpp)(
        *arguments
    )
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
    out: Tensor = torch.ops.prior_fast.attention_weights_cpp(with_dense_rows(q), with_dense_rows(k), *offsets, *options)
    return out
