"""The weights of attention over packed segments, for pictures and zero-shot scores."""

import torch
from torch import Tensor

from prior_fast.ops._backend import resolve_backend
from prior_fast.ops._checks import check_number, check_offsets, check_tensors
from prior_fast.ops._precision import accumulation_dtype, full_precision
from prior_fast.ops._segments import pad, padding_mask

__all__ = ["attention_weights"]

ACTIVATIONS = ("sigmoid", "softmax")


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
        bias: is added to the scaled products.
        activation: "sigmoid" (PRIOR's), or "softmax" over a segment's keys (supplement, section 4.2, table 3).
        backend: see `prior_fast.ops._backend.resolve_backend`.

    Returns:
        [B, H, max_seqlen_q, max_seqlen_k] of the dtype of `q`, zero outside a segment.

    Raises:
        ValueError: a shape, dtype, device, offset, activation or backend that does not fit; the message names it.
    """
    check_attention(q, k, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, scale, bias, activation)
    resolve_backend("attention_weights", backend, {"reference": None})
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
    return weights.to(q.dtype)


def check_attention(
    q: Tensor,
    k: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float | None,
    bias: float,
    activation: str,
) -> None:
    """Check what `attention_weights` and `sigmoid_attention` both take."""
    check_tensors(q=(q, "Tq H D"), k=(k, "Tk H D"))
    check_offsets("cu_seqlens_q", cu_seqlens_q, "q", q, max_name="max_seqlen_q", max_seqlen=max_seqlen_q)
    segments = cu_seqlens_q.shape[0] - 1
    check_offsets(
        "cu_seqlens_k", cu_seqlens_k, "k", k, max_name="max_seqlen_k", max_seqlen=max_seqlen_k, segments=segments
    )
    if scale is not None:
        check_number("scale", scale)
    check_number("bias", bias)
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}, wanted one of {', '.join(ACTIVATIONS)}")
