"""Attention over packed segments with an elementwise sigmoid or a softmax, forward and backward.

B segments, H heads, D columns of queries and keys, V of values. Where one tile holds all keys of a segment (forward),
or all its queries and keys (backward), as at PRIOR's 49 patches and up to 64 sentences, the kernels of this file serve:
a program makes the tile's weights once, BLOCK_D of all D columns at a time, keeps them, and goes through its SHARE of
the columns of the results, BLOCK_C at a time. So heads of any width need little memory on the chip, no score reaches
the chip's memory, and the backward is one launch. Few segments are shared by several programs, each of which makes the
weights for itself. Other segments are for `_attention_long`, whose backward is two launches.

Nothing is added atomically: results are the same in every run.

An H200 takes 13 to 15 us for the forward of 128 pairs in bfloat16, 37% to 41% of what its memory's speed allows, and 57
to 65 us for 1,024 pairs, 67% to 77% (docs/h200.md). In float32, without tensor cores, 128 pairs take 137 to 151 us.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels._attention import (
    TILE,
    columns,
    compilation,
    load_rows,
    products_of_rows,
    segment,
    softmax_of_tile,
    takes_registers,
    tile,
)
from prior_fast.kernels._attention_long import (
    _sigmoid_attention_bwd_long_k_kernel,
    _sigmoid_attention_bwd_long_q_kernel,
    _sigmoid_attention_fwd_long_kernel,
)
from prior_fast.kernels._dot import dot
from prior_fast.kernels.common.launch import launch

# Programs that a launch should have, if the columns allow: about four for each of an H200's 132 multiprocessors.
# PRIOR's 128 segments of one head are shared by four programs each, with 192 of 768 columns.
PROGRAMS = 512


@triton.jit
def _sigmoid_attention_fwd_kernel(
    q_ptr, k_ptr, v_ptr, cu_q_ptr, cu_k_ptr, out_ptr, stats_ptr, Q_STEP, K_STEP, V_STEP, scale, bias, H, D, V, SHARE,
    SOFTMAX: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """out_i = sum_j p_ij v_j with p = sigmoid(scale q_i.k_j + bias), or its softmax over j (stats: maximum, sum)."""
    shares = tl.cdiv(V, SHARE)
    b = (tl.program_id(0) // shares // H).to(tl.int64)
    h = tl.program_id(0) // shares % H
    begin_c = tl.program_id(0) % shares * SHARE
    q_ptr, k_ptr, v_ptr = q_ptr + h * D, k_ptr + h * D, v_ptr + h * V
    begin_q, end_q = segment(cu_q_ptr, b)
    begin_k, end_k = segment(cu_k_ptr, b)
    begin_q += tl.program_id(1) * BLOCK_Q
    # The grid covers the longest segment, so programs past the end of a shorter one have nothing to do.
    if begin_q >= end_q:
        return
    tq = begin_q + tl.arange(0, BLOCK_Q)
    tk = begin_k + tl.arange(0, BLOCK_K)
    mask_q, mask_k = tq < end_q, tk < end_k
    rows_q = tq * H + h

    # Each share makes all scores of the tile and keeps them in registers. More shares are more programs, and each costs
    # products over D columns again.
    s = products_of_rows(q_ptr, Q_STEP, tq, mask_q, k_ptr, K_STEP, tk, mask_k, D, BLOCK_Q, BLOCK_K, BLOCK_D)
    s = s * scale + bias
    if SOFTMAX:
        # The tile has all keys: its weights are final, and no result has to be rescaled.
        p, top, total = softmax_of_tile(s, mask_k[None, :])
        if begin_c == 0:
            tl.store(stats_ptr + rows_q * 2, top, mask=mask_q)
            tl.store(stats_ptr + rows_q * 2 + 1, total, mask=mask_q)
    else:
        p = tl.where(mask_k[None, :], tl.sigmoid(s), 0.0)
    p = p.to(v_ptr.dtype.element_ty)
    # A block of columns is one product over all keys. Only p is carried from block to block, so the loads of the next
    # blocks can run during the product of this one (num_stages).
    for first in range(begin_c, tl.minimum(begin_c + SHARE, V), BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        v = load_rows(v_ptr, V_STEP, tk, mask_k, c, V)
        out = dot(p, v, tl.zeros([BLOCK_Q, BLOCK_C], tl.float32))
        tl.store(out_ptr + rows_q[:, None] * V + c[None, :], out, mask=mask_q[:, None] & (c[None, :] < V))


@triton.jit
def _sigmoid_attention_bwd_kernel(
    dout_ptr, q_ptr, k_ptr, v_ptr, cu_q_ptr, cu_k_ptr, dq_ptr, dk_ptr, dv_ptr,
    Q_STEP, K_STEP, V_STEP, scale, bias, H, D, V, SHARE,
    SOFTMAX: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """dv_j = sum_i p_ij dout_i, dk_j = scale sum_i ds_ij q_i, dq_i = scale sum_j ds_ij k_j."""
    # The tile has all queries and keys of the segment. So a program has the whole sum of each gradient, nothing is
    # added atomically, and one launch makes all three.
    shares = tl.cdiv(tl.maximum(D, V), SHARE)
    b = (tl.program_id(0) // shares // H).to(tl.int64)
    h = tl.program_id(0) // shares % H
    begin_c = tl.program_id(0) % shares * SHARE
    q_ptr, k_ptr, v_ptr = q_ptr + h * D, k_ptr + h * D, v_ptr + h * V
    begin_q, end_q = segment(cu_q_ptr, b)
    begin_k, end_k = segment(cu_k_ptr, b)
    tq = begin_q + tl.arange(0, BLOCK_Q)
    tk = begin_k + tl.arange(0, BLOCK_K)
    mask_q, mask_k = tq < end_q, tk < end_k
    rows_q, rows_k = tq * H + h, tk * H + h

    s = products_of_rows(q_ptr, Q_STEP, tq, mask_q, k_ptr, K_STEP, tk, mask_k, D, BLOCK_Q, BLOCK_K, BLOCK_D)
    s = s * scale + bias
    dp = products_of_rows(dout_ptr, V, rows_q, mask_q, v_ptr, V_STEP, tk, mask_k, V, BLOCK_Q, BLOCK_K, BLOCK_D)
    mask = mask_q[:, None] & mask_k[None, :]
    if SOFTMAX:
        # The tile gives the softmax and its delta, so the forward's output and stats are not read.
        p, _, _ = softmax_of_tile(s, mask)
        ds = p * (dp - tl.sum(p * dp, axis=1)[:, None])
    else:
        p = tl.where(mask, tl.sigmoid(s), 0.0)
        ds = p * (1.0 - p) * dp
    # s and dp are not needed from here on: the narrow p and ds serve all columns of the share. At 64 x 64 a block takes
    # 72 KB of shared memory in bfloat16 and 80 KB in float32, and 150 and 180 registers a thread, which allow one block
    # on a multiprocessor (Triton 3.8, sm_80).
    p, ds = p.to(q_ptr.dtype.element_ty), ds.to(q_ptr.dtype.element_ty)
    # One loop serves the V columns of dv and the D columns of dk and dq: masks cut off the narrower ones.
    for first in range(begin_c, tl.minimum(begin_c + SHARE, tl.maximum(D, V)), BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        dout = load_rows(dout_ptr, V, rows_q, mask_q, c, V)
        dv = dot(tl.trans(p), dout, tl.zeros([BLOCK_K, BLOCK_C], tl.float32))
        tl.store(dv_ptr + rows_k[:, None] * V + c[None, :], dv, mask=mask_k[:, None] & (c[None, :] < V))
        q = load_rows(q_ptr, Q_STEP, tq, mask_q, c, D)
        dk = dot(tl.trans(ds), q, tl.zeros([BLOCK_K, BLOCK_C], tl.float32))
        # scale multiplies the float32 sum. Applied to ds, it would bring float16 nearer to underflow.
        tl.store(dk_ptr + rows_k[:, None] * D + c[None, :], dk * scale, mask=mask_k[:, None] & (c[None, :] < D))
        k = load_rows(k_ptr, K_STEP, tk, mask_k, c, D)
        dq = dot(ds, k, tl.zeros([BLOCK_Q, BLOCK_C], tl.float32))
        tl.store(dq_ptr + rows_q[:, None] * D + c[None, :], dq * scale, mask=mask_q[:, None] & (c[None, :] < D))


def _rows(q: Tensor, k: Tensor, v: Tensor, whole: bool) -> tuple[Tensor, Tensor, Tensor, dict[str, int]]:
    """The tensors, contiguous for the kernels of long segments; the steps between tokens for the others."""
    if not whole:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    return q, k, v, {"Q_STEP": q.stride(0), "K_STEP": k.stride(0), "V_STEP": v.stride(0)}


def _compilation(
    q: Tensor, v: Tensor, longest_q: int, longest_k: int, *, whole: bool, backward: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """The tile, `whole` where one has to hold a segment, and the columns that are taken at once; warps and stages.

    What bench/sigmoid_attention.py lists was compiled for sm_80 and sm_90 with Triton 3.6, 3.8 and 3.9: no registers
    spill.
    """
    width = max(q.shape[2], v.shape[2])
    few = takes_registers(q.dtype, q.shape[2], v.shape[2])
    wide, single = q.dtype == torch.float32, bool(q.shape[2] % 16 or v.shape[2] % 16)
    if whole:
        blocks = tile(longest_q, longest_k)
        # Results for 64 keys of fewer queries take the most registers: with Triton 3.8 float32 spills at 32 columns.
        flat = backward and blocks["BLOCK_Q"] < blocks["BLOCK_K"] == TILE
        blocks["BLOCK_D"] = columns(width, 16 if few else 64)
        # 64 columns of float32 spill some 5,500 instructions at 64 x 64, and 400 at 16 x 64 where the widths are not
        # multiples of 16 (Triton 3.8, sm_80).
        blocks["BLOCK_C"] = columns(width, (16 if flat else 32) if few else 64)
        # Three stages also where columns are few: with two, float32 spills with Triton 3.6 and 3.8.
        return blocks, compilation(blocks, few=False)
    # The kernels of long segments carry sums through their loops, beside which a tile of fewer keys has registers.
    # Single loads of float32 leave the fewest registers for a tile.
    side = 16 if wide and single else 32
    blocks = {"BLOCK_Q": side if few else TILE, "BLOCK_K": side}
    blocks["BLOCK_D"] = columns(width, 16 if few else 64)
    # Every block of columns makes the scores anew. The backward, which has the gradients of weights too, has registers
    # for 64 columns only beside small tiles.
    blocks["BLOCK_C"] = columns(width, 32 if few and backward and side == 32 else 64)
    # Single loads are not pipelined: float32's spill with Triton 3.6.
    return blocks, {"num_warps": 4, "num_stages": 1 if single else 3}


def _share(width: int, block: int, tiles: int) -> int:
    """Columns of one program, in whole blocks, so that `tiles` tiles make about PROGRAMS programs."""
    # Shares are whole blocks of columns, so no more programs than blocks can share a tile.
    blocks = max(1, triton.cdiv(width, block))
    shares = min(blocks, max(1, PROGRAMS // max(1, tiles)))
    return triton.cdiv(blocks, shares) * block


def sigmoid_attention_fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float,
    bias: float,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """q [Tq, H, D], k [Tk, H, D], v [Tk, H, V], offsets [B + 1] -> out [Tq, H, V], stats.

    The offsets are contiguous, and the heads and columns of each token.
    stats: [Tq, H, 2] float32, a query's greatest logit and the sum of exponentials below it; [0, H, 2] for sigmoid.
    """
    softmax = activation == "softmax"
    (rows, heads, width), values = q.shape, v.shape[2]
    out = q.new_empty(rows, heads, values)
    stats = q.new_empty(rows if softmax else 0, heads, 2, dtype=torch.float32)
    # A query needs all its keys, but no other query: long runs of queries are cut into tiles.
    whole = max_seqlen_k <= TILE
    q, k, v, steps = _rows(q, k, v, whole)
    blocks, compiled = _compilation(q, v, max_seqlen_q, max_seqlen_k, whole=whole, backward=False)
    arguments = {
        "q_ptr": q, "k_ptr": k, "v_ptr": v, "cu_q_ptr": cu_seqlens_q, "cu_k_ptr": cu_seqlens_k,
        "out_ptr": out, "stats_ptr": stats, "scale": float(scale), "bias": float(bias),
        "H": heads, "D": width, "V": values,
    }  # fmt: skip
    segments_heads = (cu_seqlens_q.shape[0] - 1) * heads
    tiles = triton.cdiv(max_seqlen_q, blocks["BLOCK_Q"])
    constants = {"SOFTMAX": softmax} | blocks
    if whole:
        share = _share(values, blocks["BLOCK_C"], segments_heads * tiles)
        grid = (segments_heads * triton.cdiv(values, share), tiles)
        launch(_sigmoid_attention_fwd_kernel, grid, arguments | steps | {"SHARE": share}, constants, **compiled)
    else:
        grid = (segments_heads * triton.cdiv(values, blocks["BLOCK_C"]), tiles)
        launch(_sigmoid_attention_fwd_long_kernel, grid, arguments, constants, **compiled)
    return out, stats


def sigmoid_attention_bwd(
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
    scale: float,
    bias: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """dout [Tq, H, V] contiguous and the forward's tensors -> dq, dk, dv, contiguous; out, stats: for softmax only."""
    softmax = activation == "softmax"
    (_, heads, width), values = q.shape, v.shape[2]
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    wider = max(width, values)
    # Gradients of keys sum over queries, so here a tile has to hold those too.
    whole = max(max_seqlen_q, max_seqlen_k) <= TILE
    q, k, v, steps = _rows(q, k, v, whole)
    blocks, compiled = _compilation(q, v, max_seqlen_q, max_seqlen_k, whole=whole, backward=True)
    arguments = {
        "dout_ptr": dout, "q_ptr": q, "k_ptr": k, "v_ptr": v, "cu_q_ptr": cu_seqlens_q, "cu_k_ptr": cu_seqlens_k,
        "scale": float(scale), "bias": float(bias), "H": heads, "D": width, "V": values,
    }  # fmt: skip
    segments_heads = (cu_seqlens_q.shape[0] - 1) * heads
    constants = {"SOFTMAX": softmax} | blocks
    if whole:
        share = _share(wider, blocks["BLOCK_C"], segments_heads)
        arguments |= steps | {"dq_ptr": dq, "dk_ptr": dk, "dv_ptr": dv, "SHARE": share}
        grid: tuple[int, ...] = (segments_heads * triton.cdiv(wider, share),)
        launch(_sigmoid_attention_bwd_kernel, grid, arguments, constants, **compiled)
        return dq, dk, dv
    # Where no softmax reads them, any tensors stand for these.
    arguments |= {"out_ptr": dout if out is None else out, "stats_ptr": dout if stats is None else stats}
    grid = (segments_heads * triton.cdiv(wider, blocks["BLOCK_C"]), triton.cdiv(max_seqlen_k, blocks["BLOCK_K"]))
    launch(_sigmoid_attention_bwd_long_k_kernel, grid, arguments | {"dk_ptr": dk, "dv_ptr": dv}, constants, **compiled)
    grid = (segments_heads * triton.cdiv(width, blocks["BLOCK_C"]), triton.cdiv(max_seqlen_q, blocks["BLOCK_Q"]))
    launch(_sigmoid_attention_bwd_long_q_kernel, grid, arguments | {"dq_ptr": dq}, constants, **compiled)
    return dq, dk, dv
