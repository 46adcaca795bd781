"""Attention weights over packed segments, for pictures and zero-shot scores."""

from typing import Any

import torch
from torch import Tensor

from prior_fast.ops.common.attention import check_attention, default_scale, with_dense_rows
from prior_fast.ops.common.attention_cpp import attention_weights_cpp, surely_fits
from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.cpp import with_cpp
from prior_fast.ops.common.precision import accumulation_dtype, full_precision
from prior_fast.ops.common.segments import pad, padding_mask, unpad
from prior_fast.ops.common.triton import wants_gradient, with_triton

__all__ = ["attention_weights"]


def attention_weights_reference(
    q: Tensor,
    k: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    scale: float | None = None,
    bias: float = 0.0,
    activation: str = "sigmoid",
) -> Tensor:
    """`attention_weights` in plain PyTorch, by padding each segment; the result is float32, or float64 for float64."""
    dtype = accumulation_dtype(q)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    mask_q = padding_mask(cu_seqlens_q, max_seqlen_q)
    mask_k = padding_mask(cu_seqlens_k, max_seqlen_k)
    mask = mask_q[:, None, :, None] & mask_k[:, None, None, :]
    with full_precision(q):
        padded_q = pad(q.to(dtype), cu_seqlens_q, max_seqlen_q)
        padded_k = pad(k.to(dtype), cu_seqlens_k, max_seqlen_k)
        logits = torch.einsum("bqhd,bkhd->bhqk", padded_q, padded_k) * scale + bias
        if activation == "sigmoid":
            weights = torch.sigmoid(logits)
        else:
            # The lowest finite number, not -inf: a query without keys then has finite weights, which the mask clears.
            weights = torch.softmax(logits.masked_fill(~mask_k[:, None, None, :], torch.finfo(dtype).min), dim=-1)
        return weights.masked_fill(~mask, 0.0)


@torch.library.custom_op("prior_fast::attention_weights", mutates_args=())
def _attention_weights(
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
    from prior_fast.kernels.attention_weights import attention_weights_fwd

    scale = default_scale(q, scale)
    q, k = with_dense_rows(q), with_dense_rows(k)
    cu_seqlens_q, cu_seqlens_k = cu_seqlens_q.contiguous(), cu_seqlens_k.contiguous()
    return attention_weights_fwd(q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, bias, activation)


@_attention_weights.register_fake
def _(
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
    return q.new_empty(cu_seqlens_q.shape[0] - 1, q.shape[1], max_seqlen_q, max_seqlen_k)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _backward(ctx: Any, dweights: Tensor) -> tuple[Tensor | None, ...]:
    """In plain PyTorch on padded tensors. Training does not differentiate weights, so this need not be fast."""
    q, k, cu_seqlens_q, cu_seqlens_k = ctx.saved_tensors
    max_seqlen_q, max_seqlen_k, scale, bias, activation = ctx.options
    sizes = cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k
    weights = attention_weights_reference(q, k, *sizes, scale=scale, bias=bias, activation=activation)
    with full_precision(q):
        dweights = dweights.to(weights.dtype)
        if activation == "sigmoid":
            dlogits = dweights * weights * (1 - weights)
        else:
            dlogits = weights * (dweights - (weights * dweights).sum(dim=-1, keepdim=True))
        dlogits = dlogits * default_scale(q, scale)
        padded_q = pad(q.to(weights.dtype), cu_seqlens_q, max_seqlen_q)
        padded_k = pad(k.to(weights.dtype), cu_seqlens_k, max_seqlen_k)
        dq = unpad(torch.einsum("bhqk,bkhd->bqhd", dlogits, padded_k), cu_seqlens_q, q.shape[0])
        dk = unpad(torch.einsum("bhqk,bqhd->bkhd", dlogits, padded_q), cu_seqlens_k, k.shape[0])
    return dq.to(q.dtype), dk.to(k.dtype), *[None] * 7


_attention_weights.register_autograd(_backward, setup_context=_setup_context)


def attention_weights(
    q: Tensor,
    k: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    scale: float | None = None,
    bias: float = 0.0,
    activation: str = "sigmoid",
    backend: str | None = None,
) -> Tensor:
    """Weights of each query over the keys of its own segment, padded: sigmoid(scale * q_i.k_j + bias).

    Args:
        q: [Tq, H, D] packed queries.
        k: [Tk, H, D] packed keys, of the dtype of `q`.
        cu_seqlens_q: [B + 1] int32 (or int64) offsets of the segments in `q`.
        cu_seqlens_k: [B + 1] the same for `k`; segment b of `q` attends to segment b of `k`.
        max_seqlen_q: rows of the longest segment of `q`, or more; an int, so that the shape is known on the host.
        max_seqlen_k: the same for `k`.
        scale: multiplies the inner products; D**-0.5 when None.
        bias: added to the scaled products.
        activation: "sigmoid" (PRIOR's), or "softmax" over a segment's keys (supplement, section 4.2, table 3).
        backend: see `prior_fast.ops.common.backend.resolve_backend`.

    Returns:
        [B, H, max_seqlen_q, max_seqlen_k] of the dtype of `q`, zero outside a segment. Differentiable in q and k.

    Raises:
        ValueError: a shape, dtype, device, offset, activation or backend that does not fit; the message names it.
    """
    sizes = cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k
    if surely_fits((q, k), cu_seqlens_q, cu_seqlens_k, sizes[2:], (scale, bias), activation, backend):
        return attention_weights_cpp(q, k, *sizes, scale, bias, activation)
    check_attention(q, k, *sizes, scale, bias, activation)
    # The kernels have no backward pass. On an H200, with gradients, 128 pairs take 429 us this way and 295 us in plain
    # PyTorch, which keeps the weights (bench/results/nvidia-h200/kernels-2.json).
    available = with_cpp(q, with_triton(q, fastest=not wants_gradient(q, k)))
    choice = resolve_backend("attention_weights", backend, available)
    if choice == "cpp":
        return attention_weights_cpp(q, k, *sizes, scale, bias, activation)
    if choice == "triton":
        return _attention_weights(q, k, *sizes, scale, bias, activation)
    weights = attention_weights_reference(q, k, *sizes, scale=scale, bias=bias, activation=activation)
    return weights.to(q.dtype)
