"""Attention with an elementwise sigmoid, over packed segments: PRIOR's cross-modality local alignment."""

from typing import Any

import torch
from torch import Tensor

from prior_fast.ops.attention_weights import attention_weights_reference
from prior_fast.ops.common.attention import check_attention, default_scale, with_dense_rows
from prior_fast.ops.common.attention_cpp import sigmoid_attention_cpp, surely_fits
from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.checks import check_tensors
from prior_fast.ops.common.cpp import with_cpp
from prior_fast.ops.common.precision import accumulation_dtype, full_precision
from prior_fast.ops.common.segments import pad, unpad
from prior_fast.ops.common.triton import with_triton

__all__ = ["sigmoid_attention"]


def sigmoid_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    scale: float | None = None,
    bias: float = 0.0,
    activation: str = "sigmoid",
) -> Tensor:
    """`sigmoid_attention` in plain PyTorch, by padding each segment."""
    weights = attention_weights_reference(
        q,
        k,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        scale=scale,
        bias=bias,
        activation=activation,
    )
    with full_precision(q):
        padded_v = pad(v.to(accumulation_dtype(v)), cu_seqlens_k, max_seqlen_k)
        output = torch.einsum("bhqk,bkhd->bqhd", weights, padded_v)
        return unpad(output, cu_seqlens_q, q.shape[0]).to(q.dtype)


@torch.library.custom_op("prior_fast::sigmoid_attention", mutates_args=())
def _sigmoid_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float | None,
    bias: float,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """The output, and the statistics of the softmax for the backward pass."""
    from prior_fast.kernels.sigmoid_attention import sigmoid_attention_fwd

    scale = default_scale(q, scale)
    q, k, v = (with_dense_rows(x) for x in (q, k, v))
    cu_seqlens_q, cu_seqlens_k = cu_seqlens_q.contiguous(), cu_seqlens_k.contiguous()
    return sigmoid_attention_fwd(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, bias, activation
    )


@_sigmoid_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float | None,
    bias: float,
    activation: str,
) -> tuple[Tensor, Tensor]:
    rows, heads = q.shape[:2]
    stats = q.new_empty(rows if activation == "softmax" else 0, heads, 2, dtype=torch.float32)
    return q.new_empty(rows, heads, v.shape[2]), stats


@torch.library.custom_op("prior_fast::sigmoid_attention_backward", mutates_args=())
def _sigmoid_attention_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor | None,
    stats: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float | None,
    bias: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v; `out` and `stats` are for softmax only."""
    from prior_fast.kernels.sigmoid_attention import sigmoid_attention_bwd

    scale = default_scale(q, scale)
    # out and stats come from the forward pass, contiguous.
    q, k, v = (with_dense_rows(x) for x in (q, k, v))
    dout, cu_seqlens_q, cu_seqlens_k = dout.contiguous(), cu_seqlens_q.contiguous(), cu_seqlens_k.contiguous()
    return sigmoid_attention_bwd(
        dout, q, k, v, out, stats, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, bias, activation
    )


@_sigmoid_attention_backward.register_fake
def _(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor | None,
    stats: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float | None,
    bias: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_seqlens_q, cu_seqlens_k, *options = inputs
    kept = output if options[-1] == "softmax" else (None, None)
    ctx.save_for_backward(q, k, v, *kept, cu_seqlens_q, cu_seqlens_k)
    ctx.options = options
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dout: Tensor, _: None) -> tuple[Tensor | None, ...]:
    return *_sigmoid_attention_backward(dout, *ctx.saved_tensors, *ctx.options), *[None] * 7


_sigmoid_attention.register_autograd(_backward, setup_context=_setup_context)


def sigmoid_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
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
    """out_i = sum_j sigmoid(scale * q_i.k_j + bias) v_j over the keys j of i's own segment.

    The sigmoid is from the supplement, section 4.2: weights do not sum to 1, so a query may attend to nothing. Outputs
    therefore grow with the number of keys. A query whose segment has no keys gets zeros.

    Args:
        q: [Tq, H, D] packed queries.
        k: [Tk, H, D] packed keys, of the dtype of `q`.
        v: [Tk, H, Dv] packed values, of the dtype of `q`.
        cu_seqlens_q: [B + 1] int32 (or int64) offsets of the segments in `q`.
        cu_seqlens_k: [B + 1] the same for `k` and `v`; segment b of `q` attends to segment b of `k`.
        max_seqlen_q: rows of the longest segment of `q`, or more; an int, so that the host does not wait.
        max_seqlen_k: the same for `k`.
        scale: multiplies the inner products; D**-0.5 when None.
        bias: added to the scaled products.
        activation: "sigmoid", or "softmax" over a segment's keys (the ablation of the supplement's table 3).
        backend: see `prior_fast.ops.common.backend.resolve_backend`.

    Returns:
        [Tq, H, Dv] of the dtype of `q`. Differentiable in q, k and v.

    Raises:
        ValueError: a shape, dtype, device, offset, activation or backend that does not fit; the message names it.
    """
    longest = max_seqlen_q, max_seqlen_k
    if surely_fits((q, k, v), cu_seqlens_q, cu_seqlens_k, longest, (scale, bias), activation, backend):
        return sigmoid_attention_cpp(q, k, v, cu_seqlens_q, cu_seqlens_k, scale, bias, activation)
    check_attention(q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, bias, activation)
    check_tensors(k=(k, "Tk H D"), v=(v, "Tk H Dv"))
    sizes = cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k
    chosen = resolve_backend("sigmoid_attention", backend, with_cpp(q, with_triton(q)))
    if chosen == "cpp":
        return sigmoid_attention_cpp(q, k, v, cu_seqlens_q, cu_seqlens_k, scale, bias, activation)
    if chosen == "triton":
        return _sigmoid_attention(q, k, v, *sizes, scale, bias, activation)[0]
    return sigmoid_attention_reference(q, k, v, *sizes, scale=scale, bias=bias, activation=activation)
