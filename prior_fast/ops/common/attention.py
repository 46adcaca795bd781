"""Arguments that the attention ops share: their defaults and checks."""

from torch import Tensor

from prior_fast.ops.common.checks import check_number, check_offsets, check_tensors

ACTIVATIONS = ("sigmoid", "softmax")


def default_scale(q: Tensor, scale: float | None) -> float:
    """`scale`, or D**-0.5 for queries of D columns if it is None."""
    return q.shape[-1] ** -0.5 if scale is None else scale


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
    """Check the arguments that `attention_weights` and `sigmoid_attention` share."""
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


def with_dense_rows(x: Tensor) -> Tensor:
    """x [T, H, D], or a copy if the heads and columns of a token are not contiguous; tokens may have any stride."""
    _, heads, width = x.shape
    dense = (width <= 1 or x.stride(2) == 1) and (heads <= 1 or x.stride(1) == width)
    return x if dense else x.contiguous()
