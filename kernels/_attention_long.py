"""Attention over packed segments whose queries or keys span several tiles, forward and backward.

B segments, H heads, D columns of queries and keys, V of values. A tile is BLOCK_Q queries by BLOCK_K keys of one
segment and head. A program takes BLOCK_Q queries (for the gradients of keys and values, BLOCK_K keys) and BLOCK_C
columns of its results: what it adds up fits in registers, and each block of columns makes the scores anew. All tensors
are contiguous and taken as matrices of T * H rows. Steps between tokens would be further arguments, for which not every
version has registers left.
"""

import triton
import triton.language as tl

from prior_fast.kernels._attention import load_rows, products_of_rows, segment, softmax_step
from prior_fast.kernels._dot import dot


@triton.jit
def _sigmoid_attention_fwd_long_kernel(
    q_ptr, k_ptr, v_ptr, cu_q_ptr, cu_k_ptr, out_ptr, stats_ptr, scale, bias, H, D, V,
    SOFTMAX: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """out_i = sum_j p_ij v_j with p = sigmoid(scale q_i.k_j + bias), or its softmax over j (stats: maximum, sum)."""
    # The block of columns varies fastest: programs with neighbouring numbers read the same q and k, which L2 can serve.
    blocks = tl.cdiv(V, BLOCK_C)
    b = (tl.program_id(0) // blocks // H).to(tl.int64)
    h = tl.program_id(0) // blocks % H
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    begin_q, end_q = segment(cu_q_ptr, b)
    begin_k, end_k = segment(cu_k_ptr, b)
    begin_q += tl.program_id(1) * BLOCK_Q
    # The grid covers the longest segment, so programs past the end of a shorter one have nothing to do.
    if begin_q >= end_q:
        return
    tq = begin_q + tl.arange(0, BLOCK_Q)
    mask_q = tq < end_q
    rows_q = tq * H + h

    # Accumulators are float32 in registers. 64 x 64 results are 32 registers a thread with four warps. All 768 columns
    # of a head at once would be 384, and a thread has 255 at most.
    out = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    for first in range(begin_k, end_k, BLOCK_K):
        tk = first + tl.arange(0, BLOCK_K)
        mask_k = tk < end_k
        rows_k = tk * H + h
        s = products_of_rows(q_ptr, D, rows_q, mask_q, k_ptr, D, rows_k, mask_k, D, BLOCK_Q, BLOCK_K, BLOCK_D)
        s = s * scale + bias
        if SOFTMAX:
            p, shrink, top, total = softmax_step(s, mask_k[None, :], top, total)
            out = out * shrink[:, None]
        else:
            p = tl.where(mask_k[None, :], tl.sigmoid(s), 0.0)
        v = load_rows(v_ptr, V, rows_k, mask_k, c, V)
        # A softmax's p is at most 1 here and is rounded for the tensor cores. The division by the sum follows the loop.
        out = dot(p.to(v.dtype), v, out)
    if SOFTMAX:
        # The loop does not run for a segment without keys: its results stay 0 and not 0 / 0.
        total = tl.where(begin_k < end_k, total, 1.0)
        out = out / total[:, None]
        # Every block of columns has the same stats, so one of them stores them.
        if tl.program_id(0) % blocks == 0:
            tl.store(stats_ptr + rows_q * 2, top, mask=mask_q)
            tl.store(stats_ptr + rows_q * 2 + 1, total, mask=mask_q)
    tl.store(out_ptr + rows_q[:, None] * V + c[None, :], out, mask=mask_q[:, None] & (c[None, :] < V))


@triton.jit
def _load_stats(
    stats_ptr, dout_ptr, out_ptr, rows_q, mask_q, V,
    SOFTMAX: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Of a softmax's rows: maximum, sum, and delta_i = sum_j p_ij dp_ij = dout_i.out_i, which dp is too large by."""
    top = tl.zeros([BLOCK_Q], tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    delta = tl.zeros([BLOCK_Q], tl.float32)
    if SOFTMAX:
        top = tl.load(stats_ptr + rows_q * 2, mask=mask_q, other=0.0)
        total = tl.load(stats_ptr + rows_q * 2 + 1, mask=mask_q, other=1.0)
        # delta from the output costs V columns a row, where the sum over keys would cost a pass over all of them. The
        # kernel of keys and values does this at each tile of queries; storing delta once would be a third launch.
        for first in range(0, V, BLOCK_D):
            c = first + tl.arange(0, BLOCK_D)
            dout = load_rows(dout_ptr, V, rows_q, mask_q, c, V).to(tl.float32)
            delta += tl.sum(dout * load_rows(out_ptr, V, rows_q, mask_q, c, V).to(tl.float32), axis=1)
    return top, total, delta


@triton.jit
def _weights_and_gradients(s, dp, mask, top, total, delta, SOFTMAX: tl.constexpr):
    """The weights p of scores s, and the gradients of s from those of p."""
    # Rows past an end read as zeros, which makes their scores equal to the bias. The mask makes their weights 0.
    if SOFTMAX:
        # The forward's stats spare a pass over all keys for the maximum and the sum.
        p = tl.where(mask, tl.exp(s - top[:, None]) / total[:, None], 0.0)
        return p, p * (dp - delta[:, None])
    p = tl.where(mask, tl.sigmoid(s), 0.0)
    return p, p * (1.0 - p) * dp


@triton.jit
def _sigmoid_attention_bwd_long_k_kernel(
    dout_ptr, q_ptr, k_ptr, v_ptr, out_ptr, stats_ptr, cu_q_ptr, cu_k_ptr, dk_ptr, dv_ptr, scale, bias, H, D, V,
    SOFTMAX: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """dv_j = sum_i p_ij dout_i and dk_j = scale sum_i ds_ij q_i."""
    # dk and dv share a program because both need p, and dk also dp: products over D and over V columns, made once for
    # both. dq sums over keys where these sum over queries. One kernel for all three would have to add dq atomically.
    blocks = tl.cdiv(tl.maximum(D, V), BLOCK_C)
    b = (tl.program_id(0) // blocks // H).to(tl.int64)
    h = tl.program_id(0) // blocks % H
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    begin_q, end_q = segment(cu_q_ptr, b)
    begin_k, end_k = segment(cu_k_ptr, b)
    begin_k += tl.program_id(1) * BLOCK_K
    if begin_k >= end_k:
        return
    tk = begin_k + tl.arange(0, BLOCK_K)
    mask_k = tk < end_k
    rows_k = tk * H + h

    # Two accumulators allow 32 keys. With 64 and four warps bfloat16 spills 32 to 105 instructions (Triton 3.8, sm_80);
    # with 32 it takes 213 to 254 registers, which leaves two blocks on a multiprocessor.
    dk = tl.zeros([BLOCK_K, BLOCK_C], tl.float32)
    dv = tl.zeros([BLOCK_K, BLOCK_C], tl.float32)
    for first in range(begin_q, end_q, BLOCK_Q):
        tq = first + tl.arange(0, BLOCK_Q)
        mask_q = tq < end_q
        rows_q = tq * H + h
        s = products_of_rows(q_ptr, D, rows_q, mask_q, k_ptr, D, rows_k, mask_k, D, BLOCK_Q, BLOCK_K, BLOCK_D)
        dp = products_of_rows(dout_ptr, V, rows_q, mask_q, v_ptr, V, rows_k, mask_k, V, BLOCK_Q, BLOCK_K, BLOCK_D)
        top, total, delta = _load_stats(stats_ptr, dout_ptr, out_ptr, rows_q, mask_q, V, SOFTMAX, BLOCK_Q, BLOCK_D)
        mask = mask_q[:, None] & mask_k[None, :]
        p, ds = _weights_and_gradients(s * scale + bias, dp, mask, top, total, delta, SOFTMAX)
        dout = load_rows(dout_ptr, V, rows_q, mask_q, c, V)
        dv = dot(tl.trans(p.to(dout.dtype)), dout, dv)
        q = load_rows(q_ptr, D, rows_q, mask_q, c, D)
        # scale multiplies the float32 sum after the loop. Applied to ds, it would bring float16 nearer to underflow.
        dk = dot(tl.trans(ds.to(q.dtype)), q, dk)
    tl.store(dk_ptr + rows_k[:, None] * D + c[None, :], dk * scale, mask=mask_k[:, None] & (c[None, :] < D))
    tl.store(dv_ptr + rows_k[:, None] * V + c[None, :], dv, mask=mask_k[:, None] & (c[None, :] < V))


@triton.jit
def _sigmoid_attention_bwd_long_q_kernel(
    dout_ptr, q_ptr, k_ptr, v_ptr, out_ptr, stats_ptr, cu_q_ptr, cu_k_ptr, dq_ptr, scale, bias, H, D, V,
    SOFTMAX: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """dq_i = scale sum_j ds_ij k_j."""
    # The scores and dp are made here a second time, which is the price of three gradients without atomics.
    blocks = tl.cdiv(D, BLOCK_C)
    b = (tl.program_id(0) // blocks // H).to(tl.int64)
    h = tl.program_id(0) // blocks % H
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    begin_q, end_q = segment(cu_q_ptr, b)
    begin_k, end_k = segment(cu_k_ptr, b)
    begin_q += tl.program_id(1) * BLOCK_Q
    if begin_q >= end_q:
        return
    tq = begin_q + tl.arange(0, BLOCK_Q)
    mask_q = tq < end_q
    rows_q = tq * H + h

    # The queries stay the same here, so their stats are loaded once, before the loop.
    top, total, delta = _load_stats(stats_ptr, dout_ptr, out_ptr, rows_q, mask_q, V, SOFTMAX, BLOCK_Q, BLOCK_D)
    # 64 keys spill here too: 4 to 9 instructions in bfloat16 with four warps (Triton 3.8, sm_80).
    dq = tl.zeros([BLOCK_Q, BLOCK_C], tl.float32)
    for first in range(begin_k, end_k, BLOCK_K):
        tk = first + tl.arange(0, BLOCK_K)
        mask_k = tk < end_k
        rows_k = tk * H + h
        s = products_of_rows(q_ptr, D, rows_q, mask_q, k_ptr, D, rows_k, mask_k, D, BLOCK_Q, BLOCK_K, BLOCK_D)
        dp = products_of_rows(dout_ptr, V, rows_q, mask_q, v_ptr, V, rows_k, mask_k, V, BLOCK_Q, BLOCK_K, BLOCK_D)
        mask = mask_q[:, None] & mask_k[None, :]
        _, ds = _weights_and_gradients(s * scale + bias, dp, mask, top, total, delta, SOFTMAX)
        k = load_rows(k_ptr, D, rows_k, mask_k, c, D)
        dq = dot(ds.to(k.dtype), k, dq)
    tl.store(dq_ptr + rows_q[:, None] * D + c[None, :], dq * scale, mask=mask_q[:, None] & (c[None, :] < D))
