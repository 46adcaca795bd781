"""Multi-head softmax attention over short packed segments, with dropout of the weights."""

from typing import Any

import torch
from torch import Tensor

from prior_fast.ops.common.attention import default_scale, with_dense_rows
from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.checks import check_dropout, check_number, check_offsets, check_tensors
from prior_fast.ops.common.philox import seed_tensor, uniform
from prior_fast.ops.common.precision import accumulation_dtype, full_precision
from prior_fast.ops.common.segments import pad, padding_mask, unpad
from prior_fast.ops.common.triton import with_triton

__all__ = ["packed_attention"]

# The kernels hold all columns of a head at once.
WIDEST = 128


def packed_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """`packed_attention` in plain PyTorch, by padding each segment."""
    dtype = accumulation_dtype(q)
    with full_precision(q):
        queries = pad(q.to(dtype), cu_seqlens_q, max_seqlen_q)
        keys, values = (pad(x.to(dtype), cu_seqlens_k, max_seqlen_k) for x in (k, v))
        logits = torch.einsum("bqhd,bkhd->bhqk", queries, keys) * default_scale(q, scale)
        mask = padding_mask(cu_seqlens_k, max_seqlen_k)[:, None, None, :]
        if causal:
            of_q, of_k = (torch.arange(n, device=q.device) for n in (max_seqlen_q, max_seqlen_k))
            mask = mask & (of_k <= of_q[:, None])
        # The least number and not -inf: a row without keys is then uniform, and not NaN, before its weights become 0.
        weights = torch.softmax(logits.masked_fill(~mask, torch.finfo(dtype).min), dim=-1).masked_fill(~mask, 0.0)
        if dropout and seed is not None:
            kept = kept_weights(seed, dropout, q.shape[0], q.shape[1], max_seqlen_k, q.device)
            weights = weights * pad(kept.to(dtype), cu_seqlens_q, max_seqlen_q).transpose(1, 2) / (1 - dropout)
        return unpad(torch.einsum("bhqk,bkhd->bqhd", weights, values), cu_seqlens_q, q.shape[0]).to(q.dtype)


def kept_weights(
    seed: int | Tensor, dropout: float, rows: int, heads: int, max_seqlen_k: int, device: torch.device
) -> Tensor:
    """The weights that dropout keeps: bool [Tq, H, max_seqlen_k]; keys by their position within the segment.

    The weight of query row i, head h and key j has counter (i H + h) max_seqlen_k + j in the contract of
    `prior_fast.ops.common.philox`. It is kept if the 23 bits r >> 9 of its word are at least round(dropout 2**23).
    """
    key = seed.reshape(()) if isinstance(seed, Tensor) else seed
    # u is a half step above a multiple of 2**-23, so this compares the 23 bits exactly.
    return uniform(key, (rows, heads, max_seqlen_k), device=device) > round(dropout * 2**23) * 2.0**-23


@torch.library.custom_op("prior_fast::packed_attention", mutates_args=())
def _packed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    seed: Tensor | None,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float | None,
    dropout: float,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """The output, and for the backward pass the logarithm of each query's sum of exponentials."""
    from prior_fast.kernels.packed_attention import packed_attention_fwd

    q, k, v = (with_dense_rows(x) for x in (q, k, v))
    offsets = cu_seqlens_q.contiguous(), cu_seqlens_k.contiguous()
    return packed_attention_fwd(
        q, k, v, *offsets, seed, max_seqlen_q, max_seqlen_k, default_scale(q, scale), dropout, causal
    )


@_packed_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    seed: Tensor | None,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float | None,
    dropout: float,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=torch.float32)


@torch.library.custom_op("prior_fast::packed_attention_backward", mutates_args=())
def _packed_attention_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    seed: Tensor | None,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float | None,
    dropout: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    from prior_fast.kernels.packed_attention import packed_attention_bwd

    q, k, v = (with_dense_rows(x) for x in (q, k, v))
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    packed_attention_bwd(
        dout.contiguous(),
        q,
        k,
        v,
        out,
        lse,
        cu_seqlens_q.contiguous(),
        cu_seqlens_k.contiguous(),
        seed,
        dq,
        dk,
        dv,
        max_seqlen_q,
        max_seqlen_k,
        default_scale(q, scale),
        dropout,
        causal,
    )
    return dq, dk, dv


@_packed_attention_backward.register_fake
def _(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    seed: Tensor | None,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float | None,
    dropout: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_seqlens_q, cu_seqlens_k, seed, *options = inputs
    out, lse = output
    ctx.save_for_backward(q, k, v, out, lse, cu_seqlens_q, cu_seqlens_k, seed)
    ctx.options = options
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dout: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if dout is None:
        return (None,) * 11
    return *_packed_attention_backward(dout, *ctx.saved_tensors, *ctx.options), *[None] * 8


_packed_attention.register_autograd(_backward, setup_context=_setup_context)


def packed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    causal: bool = False,
    backend: str | None = None,
) -> Tensor:
    """out_i = sum_j m_ij p_ij v_j with p_i = softmax over j of scale * q_i.k_j, over the keys of i's own segment.

    Scaled dot-product attention is from Vaswani et al., "Attention is all you need" (NeurIPS 2017), equation 1. PRIOR's
    text encoder and sentence decoder use it; the decoder drops weights, m_ij, as BERT does (Devlin et al., NAACL 2019).
    A query whose segment has no keys gets zeros.

    Args:
        q: [Tq, H, D] packed queries.
        k: [Tk, H, D] packed keys, of the dtype of `q`.
        v: [Tk, H, D] packed values, of the dtype of `q`.
        cu_seqlens_q: [B + 1] int32 (or int64) offsets of the segments in `q`.
        cu_seqlens_k: [B + 1] the same for `k` and `v`; segment b of `q` attends to segment b of `k`.
        max_seqlen_q: rows of the longest segment of `q`, or more; an int, so that the host does not wait.
        max_seqlen_k: the same for `k`.
        scale: multiplies the inner products; D**-0.5 when None.
        dropout: probability, from 0 to below 1, that m_ij is 0; otherwise it is 1 / (1 - dropout).
        seed: generates m by the contract of `kept_weights`, the same on every backend and in both passes; it needs to
            be given if `dropout` is not 0. An int64 value: an int, or a tensor of one element on the device of `q`.
            Under torch.compile pass a tensor, since a new int may cause a recompilation.
        causal: whether query i of a segment attends only to keys j <= i, both counted from the segment's start.
        backend: see `prior_fast.ops.common.backend.resolve_backend`. The kernels take heads of up to 128 columns.

    Returns:
        [Tq, H, D] of the dtype of `q`. Differentiable in q, k and v.

    Raises:
        ValueError: a shape, dtype, device, offset, probability, seed or backend that does not fit; the message names
            it.
    """
    check_tensors(q=(q, "Tq H D"), k=(k, "Tk H D"), v=(v, "Tk H D"))
    check_offsets("cu_seqlens_q", cu_seqlens_q, "q", q, max_name="max_seqlen_q", max_seqlen=max_seqlen_q)
    check_offsets(
        "cu_seqlens_k",
        cu_seqlens_k,
        "k",
        k,
        max_name="max_seqlen_k",
        max_seqlen=max_seqlen_k,
        segments=cu_seqlens_q.shape[0] - 1,
    )
    check_options(scale, dropout, seed, causal, "q", q)
    sizes = cu_seqlens_q, cu_seqlens_k
    if resolve_backend("packed_attention", backend, with_narrow_heads(q)) == "triton":
        key = seed_tensor(seed, q.device) if dropout and seed is not None else None
        options = max_seqlen_q, max_seqlen_k, scale, float(dropout), causal
        return _packed_attention(q, k, v, *sizes, key, *options)[0]
    return packed_attention_reference(
        q, k, v, *sizes, max_seqlen_q, max_seqlen_k, scale=scale, dropout=dropout, seed=seed, causal=causal
    )


def with_narrow_heads(x: Tensor) -> dict[str, str | None]:
    """The backends for [..., D] heads, best first: None, or why it can't serve."""
    available = with_triton(x)
    if available["triton"] is None and x.shape[-1] > WIDEST:
        available["triton"] = f"it takes heads of up to {WIDEST} columns, not {x.shape[-1]}"
    return available


def check_options(
    scale: float | None, dropout: float, seed: int | Tensor | None, causal: bool, name: str, x: Tensor
) -> None:
    """Check what `packed_attention` and `packed_self_attention` share; `x`, called `name`, sets the device."""
    if scale is not None:
        check_number("scale", scale)
    check_dropout(dropout, seed, name, x)
    if not isinstance(causal, bool):
        raise ValueError(f"causal must be a bool, got {type(causal).__name__}")
