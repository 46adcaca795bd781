"""Softmax attention within packed segments, of queries, keys and values that one product made together."""

from typing import Any

import torch
from torch import Tensor

from prior_fast.ops.common.attention import default_scale
from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.checks import check_offsets, check_tensors
from prior_fast.ops.common.philox import seed_tensor
from prior_fast.ops.packed_attention import check_options, packed_attention_reference, with_narrow_heads

__all__ = ["packed_self_attention"]


def packed_self_attention_reference(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """`packed_self_attention` in plain PyTorch."""
    q, k, v = _parts(qkv)
    return packed_attention_reference(
        q,
        k,
        v,
        cu_seqlens,
        cu_seqlens,
        max_seqlen,
        max_seqlen,
        scale=scale,
        dropout=dropout,
        seed=seed,
        causal=causal,
    )


def _parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The queries, keys and values, or their gradients, of [T, 3, H, D]."""
    return x[:, 0], x[:, 1], x[:, 2]


def _dense(qkv: Tensor) -> Tensor:
    """qkv, or a copy if what a token has is not contiguous; tokens may have any stride."""
    _, _, heads, width = qkv.shape
    columns = width <= 1 or qkv.stride(3) == 1
    return qkv if columns and (heads <= 1 or qkv.stride(2) == width) else qkv.contiguous()


@torch.library.custom_op("prior_fast::packed_self_attention", mutates_args=())
def _packed_self_attention(
    qkv: Tensor,
    cu_seqlens: Tensor,
    seed: Tensor | None,
    max_seqlen: int,
    scale: float | None,
    dropout: float,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """The output, and for the backward pass the logarithm of each query's sum of exponentials."""
    from prior_fast.kernels.packed_attention import packed_attention_fwd

    cu = cu_seqlens.contiguous()
    q, k, v = _parts(_dense(qkv))
    number = default_scale(qkv, scale)
    return packed_attention_fwd(q, k, v, cu, cu, seed, max_seqlen, max_seqlen, number, dropout, causal)


@_packed_self_attention.register_fake
def _(
    qkv: Tensor,
    cu_seqlens: Tensor,
    seed: Tensor | None,
    max_seqlen: int,
    scale: float | None,
    dropout: float,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    rows, _, heads, width = qkv.shape
    return qkv.new_empty(rows, heads, width), qkv.new_empty(rows, heads, dtype=torch.float32)


@torch.library.custom_op("prior_fast::packed_self_attention_backward", mutates_args=())
def _packed_self_attention_backward(
    dout: Tensor,
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor,
    seed: Tensor | None,
    max_seqlen: int,
    scale: float | None,
    dropout: float,
    causal: bool,
) -> Tensor:
    from prior_fast.kernels.packed_attention import packed_attention_bwd

    # The kernel writes the three gradients where the product's backward wants them, so nothing is concatenated.
    dqkv = qkv.new_empty(qkv.shape)
    cu = cu_seqlens.contiguous()
    q, k, v = _parts(_dense(qkv))
    dq, dk, dv = _parts(dqkv)
    packed_attention_bwd(
        dout.contiguous(),
        q,
        k,
        v,
        out,
        lse,
        cu,
        cu,
        seed,
        dq,
        dk,
        dv,
        max_seqlen,
        max_seqlen,
        default_scale(qkv, scale),
        dropout,
        causal,
    )
    return dqkv


@_packed_self_attention_backward.register_fake
def _(
    dout: Tensor,
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor,
    seed: Tensor | None,
    max_seqlen: int,
    scale: float | None,
    dropout: float,
    causal: bool,
) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, cu_seqlens, seed, *options = inputs
    out, lse = output
    ctx.save_for_backward(qkv, out, lse, cu_seqlens, seed)
    ctx.options = options
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dout: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if dout is None:
        return (None,) * 7
    return _packed_self_attention_backward(dout, *ctx.saved_tensors, *ctx.options), *[None] * 6


_packed_self_attention.register_autograd(_backward, setup_context=_setup_context)


def packed_self_attention(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    causal: bool = False,
    backend: str | None = None,
) -> Tensor:
    """`packed_attention` of a segment's rows to each other; the gradient is one tensor, as `qkv` is.

    Scaled dot-product attention is from Vaswani et al., "Attention is all you need" (NeurIPS 2017), equation 1.

    Args:
        qkv: [T, 3, H, D] packed queries, keys and values.
        cu_seqlens: [B + 1] int32 (or int64) offsets of the segments.
        max_seqlen: rows of the longest segment, or more; an int, so that the host does not wait.
        scale: multiplies the inner products; D**-0.5 when None.
        dropout: probability, from 0 to below 1, that a weight is dropped.
        seed: generates the dropped weights, as in `packed_attention`.
        causal: whether row i of a segment attends only to rows j <= i.
        backend: see `prior_fast.ops.common.backend.resolve_backend`. The kernels take heads of up to 128 columns.

    Returns:
        [T, H, D] of the dtype of `qkv`. Differentiable in qkv.

    Raises:
        ValueError: a shape, dtype, offset, probability, seed or backend that does not fit; the message names it.
    """
    check_tensors(qkv=(qkv, "T 3 H D"))
    if qkv.shape[1] != 3:
        raise ValueError(f"qkv has shape {list(qkv.shape)}, wanted [T, 3, H, D]: queries, keys and values")
    check_offsets("cu_seqlens", cu_seqlens, "qkv", qkv, max_name="max_seqlen", max_seqlen=max_seqlen)
    check_options(scale, dropout, seed, causal, "qkv", qkv)
    if resolve_backend("packed_self_attention", backend, with_narrow_heads(qkv)) == "triton":
        key = seed_tensor(seed, qkv.device) if dropout and seed is not None else None
        return _packed_self_attention(qkv, cu_seqlens, key, max_seqlen, scale, float(dropout), causal)[0]
    return packed_self_attention_reference(
        qkv, cu_seqlens, max_seqlen, scale=scale, dropout=dropout, seed=seed, causal=causal
    )
