"""Softmax attention over short packed segments, forward and backward: tiles and launches of `_packed_attention`."""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from prior_fast.kernels._attention import columns, takes_registers
from prior_fast.kernels._packed_attention import (
    _packed_attention_bwd_kernel,
    _packed_attention_bwd_tiles_kernel,
    _packed_attention_fwd_kernel,
)
from prior_fast.kernels.common.launch import launch

# Segments with more queries or keys than this are shared by several programs in the backward pass. For 128 reports of
# 90 tokens an H200 takes 178 us in this way, and 230 us with a program for each segment and head
# (bench/results/nvidia-h200/packed-attention.json).
LONGEST = 64


class Tiles(NamedTuple):
    """What a launcher chooses: the tile, its compilation, and how the backward pass is divided.

    Attributes:
        queries: BLOCK_Q.
        keys: BLOCK_K.
        chunk: columns of an inner product that are taken at once.
        warps: warps of a program.
        stages: stages of software pipelining.
        shared: whether several programs share a segment in the backward pass, each with a tile.
    """

    queries: int
    keys: int
    chunk: int
    warps: int
    stages: int
    shared: bool = False


def choose_tiles(
    dtype: torch.dtype, width: int, longest_q: int, longest_k: int, backward: bool, dropout: bool
) -> Tiles:
    """The tiles of a call, by shapes and dtype alone."""
    block_d = columns(width, 128)
    shared = backward and max(longest_q, longest_k) > LONGEST
    if takes_registers(dtype, width):
        # Beside such products and loads a program has registers for one kind of gradient, so all segments are shared.
        # Smaller tiles for short segments would need versions that spill (Triton 3.8).
        exact = dtype == torch.float32
        return Tiles(32, 32, 16 if exact else block_d, 8 if backward else 4, 1, backward)
    wide = width > 64
    # The warps and stages were the fastest of those in bench/results/nvidia-h200/packed-attention.json.
    if not backward:
        queries, keys = columns(longest_q, 64), columns(longest_k, 32 if wide else 64)
        return Tiles(queries, keys, block_d, 1 if queries * keys == 256 and not wide else 4, 2 if wide else 3)
    # dk, dv and a tile's dq stay in registers. With 64 queries, or 64 keys of wide heads, they spill (Triton 3.8).
    queries, keys = columns(longest_q, 32), columns(longest_k, 32 if wide and not shared else 64)
    warps = 2 if queries * keys <= 1024 else 8 if dropout and queries * keys == 2048 and not shared else 4
    return Tiles(queries, keys, block_d, 8 if wide else warps, 1, shared)


def _options(scale: float, dropout: float, causal: bool, seed: Tensor | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments and constants of a call's options."""
    arguments: dict[str, Any] = {
        "seed_ptr": seed if dropout else None,
        "scale": float(scale),
        # Weights are kept whose 23 random bits reach the threshold.
        "threshold": round(dropout * 2**23),
        "rescale": 1.0 / (1.0 - dropout),
    }
    return arguments, {"CAUSAL": causal, "DROPOUT": bool(dropout)}


def packed_attention_fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    seed: Tensor | None,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float,
    dropout: float,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """q [Tq, H, D], k, v [Tk, H, D], offsets [B + 1], seed [] int64 -> out [Tq, H, D], lse [Tq, H] float32.

    The offsets are contiguous, and the heads and columns of each token; D is at most 128.
    """
    rows, heads, width = q.shape
    out = q.new_empty(rows, heads, width)
    lse = q.new_empty(rows, heads, dtype=torch.float32)
    tiles = choose_tiles(q.dtype, width, max_seqlen_q, max_seqlen_k, False, dropout > 0)
    numbers, choices = _options(scale, dropout, causal, seed)
    arguments = {
        "q_ptr": q, "k_ptr": k, "v_ptr": v, "cu_q_ptr": cu_seqlens_q, "cu_k_ptr": cu_seqlens_k, "out_ptr": out,
        "lse_ptr": lse, "Q_STEP": q.stride(0), "K_STEP": k.stride(0), "V_STEP": v.stride(0), "H": heads,
        "MAX_K": max_seqlen_k,
    }  # fmt: skip
    constants = _constants(tiles, width) | choices | {"WHOLE": max_seqlen_k <= tiles.keys}
    grid = ((cu_seqlens_q.shape[0] - 1) * heads, triton.cdiv(max_seqlen_q, tiles.queries))
    compiled = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    launch(_packed_attention_fwd_kernel, grid, arguments | numbers, constants, **compiled)
    return out, lse


def packed_attention_bwd(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    seed: Tensor | None,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scale: float,
    dropout: float,
    causal: bool,
) -> None:
    """dout [Tq, H, D] contiguous and the forward's tensors: writes dq, dk, dv, whose tokens may lie apart."""
    rows, heads, width = q.shape
    tiles = choose_tiles(q.dtype, width, max_seqlen_q, max_seqlen_k, True, dropout > 0)
    numbers, choices = _options(scale, dropout, causal, seed)
    arguments = {
        "dout_ptr": dout, "q_ptr": q, "k_ptr": k, "v_ptr": v, "out_ptr": out, "lse_ptr": lse,
        "cu_q_ptr": cu_seqlens_q, "cu_k_ptr": cu_seqlens_k, "dq_ptr": dq, "dk_ptr": dk, "dv_ptr": dv,
        "Q_STEP": q.stride(0), "K_STEP": k.stride(0), "V_STEP": v.stride(0),
        "DQ_STEP": dq.stride(0), "DK_STEP": dk.stride(0), "DV_STEP": dv.stride(0), "H": heads, "MAX_K": max_seqlen_k,
    }  # fmt: skip
    constants = _constants(tiles, width) | choices
    programs = (cu_seqlens_q.shape[0] - 1) * heads
    compiled = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    if tiles.shared:
        key_tiles = triton.cdiv(max_seqlen_k, tiles.keys)
        grid = (programs, key_tiles + triton.cdiv(max_seqlen_q, tiles.queries))
        arguments |= numbers | {"KEY_TILES": key_tiles}
        launch(_packed_attention_bwd_tiles_kernel, grid, arguments, constants, **compiled)
        return
    whole = max_seqlen_k <= tiles.keys
    # Sums of dq wait here between the tiles of keys; where one tile has all keys, any tensor stands for it.
    sums = dq if whole else torch.empty(rows, heads, width, dtype=torch.float32, device=q.device)
    arguments |= numbers | {"sum_ptr": sums}
    launch(_packed_attention_bwd_kernel, (programs,), arguments, constants | {"WHOLE": whole}, **compiled)


def _constants(tiles: Tiles, width: int) -> dict[str, Any]:
    block_d = columns(width, 128)
    chunk = min(tiles.chunk, block_d)
    return {"D": width, "BLOCK_Q": tiles.queries, "BLOCK_K": tiles.keys, "BLOCK_D": block_d, "CHUNK": chunk}
