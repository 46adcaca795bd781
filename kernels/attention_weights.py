"""The weights of attention over packed segments, written to a padded tensor.

B segments, H heads, D columns, and Q by K weights of each segment and head, padding included. A program takes BLOCK_Q
queries of a segment and head, and all keys, BLOCK_K at a time. A softmax whose keys span several tiles is made in two
passes over them: the first for the maximum and the sum of exponentials.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels._attention import (
    columns,
    compilation,
    products_of_rows,
    segment,
    softmax_of_tile,
    softmax_step,
    takes_registers,
    tile,
)
from prior_fast.kernels.common.launch import launch


@triton.jit
def _attention_weights_fwd_kernel(
    q_ptr, k_ptr, cu_q_ptr, cu_k_ptr, w_ptr, Q_STEP, K_STEP, scale, bias, H, D, Q, K,
    SOFTMAX: tl.constexpr, WHOLE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """w_ij = sigmoid(scale q_i.k_j + bias), or its softmax over j; 0 in the padding. WHOLE: a tile holds all keys."""
    # b is int64 because offsets into the result, B H Q K numbers, pass 2**31.
    b = (tl.program_id(0) // H).to(tl.int64)
    h = tl.program_id(0) % H
    q_ptr, k_ptr = q_ptr + h * D, k_ptr + h * D
    begin_q, end_q = segment(cu_q_ptr, b)
    begin_k, end_k = segment(cu_k_ptr, b)
    i = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    mask_q = i < end_q - begin_q
    tq = begin_q + i

    # The weights themselves are stored. A running softmax would have to rescale what lies in memory already, so the
    # maximum and the sum get a pass of their own: products over D twice, in place of a second pass over the weights.
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    if SOFTMAX and not WHOLE:
        for first in range(begin_k, end_k, BLOCK_K):
            tk = first + tl.arange(0, BLOCK_K)
            mask_k = tk < end_k
            s = products_of_rows(q_ptr, Q_STEP, tq, mask_q, k_ptr, K_STEP, tk, mask_k, D, BLOCK_Q, BLOCK_K, BLOCK_D)
            _, _, top, total = softmax_step(s * scale + bias, mask_k[None, :], top, total)
    # To the padded K, not to the segment's end: the stores write the zeros of the padding, so the result needs no fill.
    for first in range(0, K, BLOCK_K):
        j = first + tl.arange(0, BLOCK_K)
        mask_k = j < end_k - begin_k
        mask = mask_q[:, None] & mask_k[None, :]
        tk = begin_k + j
        s = products_of_rows(q_ptr, Q_STEP, tq, mask_q, k_ptr, K_STEP, tk, mask_k, D, BLOCK_Q, BLOCK_K, BLOCK_D)
        s = s * scale + bias
        if SOFTMAX and WHOLE:
            w, _, _ = softmax_of_tile(s, mask)
        elif SOFTMAX:
            # A product with the mask would not do: a segment without keys has inf / 0 here.
            w = tl.where(mask, tl.exp(s - top[:, None]) / total[:, None], 0.0)
        else:
            w = tl.where(mask, tl.sigmoid(s), 0.0)
        # i < Q, not mask_q: rows of the padding are zeros too.
        row = (b * H + h) * Q + i
        tl.store(w_ptr + row[:, None] * K + j[None, :], w, mask=(i[:, None] < Q) & (j[None, :] < K))


def attention_weights_fwd(
    q: Tensor,
    k: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float,
    bias: float,
    activation: str,
) -> Tensor:
    """q [Tq, H, D], k [Tk, H, D], offsets [B + 1] -> [B, H, max_seqlen_q, max_seqlen_k].

    The offsets are contiguous, and the heads and columns of each token.
    """
    segments, heads, width = cu_seqlens_q.shape[0] - 1, *q.shape[1:]
    weights = torch.empty(segments, heads, max_seqlen_q, max_seqlen_k, dtype=q.dtype, device=q.device)
    few = takes_registers(q.dtype, width)
    # In float32 at 64 x 64, 32 columns spill 12 to 16 instructions with eight warps, and 16 take 202 to 210 registers
    # (Triton 3.8, sm_80).
    blocks = tile(max_seqlen_q, max_seqlen_k) | {"BLOCK_D": columns(width, 16 if few else 64)}
    launch(
        _attention_weights_fwd_kernel,
        (segments * heads, triton.cdiv(max_seqlen_q, blocks["BLOCK_Q"])),
        {
            "q_ptr": q, "k_ptr": k, "cu_q_ptr": cu_seqlens_q, "cu_k_ptr": cu_seqlens_k, "w_ptr": weights,
            "Q_STEP": q.stride(0), "K_STEP": k.stride(0),
            "scale": float(scale), "bias": float(bias), "H": heads, "D": width, "Q": max_seqlen_q, "K": max_seqlen_k,
        },
        {"SOFTMAX": activation == "softmax", "WHOLE": max_seqlen_k <= blocks["BLOCK_K"]} | blocks,
        **compilation(blocks, few),
    )  # fmt: skip
    return weights
