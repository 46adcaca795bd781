"""What the attention kernels share: segments, products of rows, the softmax of tiles, and the choice of blocks.

H heads; a tile is BLOCK_Q queries by BLOCK_K keys of one segment and head. Queries, keys and values are [T, H, D]
tensors whose heads and columns lie side by side and whose tokens may lie apart, STEP elements from one to the next: a
part of what one product made for all three.
"""

import torch
import triton
import triton.language as tl

from prior_fast.kernels._dot import dot

# Queries, and keys, of the largest tile. 64 is the least power of two that holds an image's 49 patches. A float32 tile
# of 64 x 64 takes 16 registers a thread with eight warps, and the backward kernels hold several of them.
TILE = 64


@triton.jit
def segment(cu_ptr, b):
    """The first row of segment b, and the one after its last."""
    # int64: a row times its step passes 2**31 elements long before the row does.
    return tl.load(cu_ptr + b).to(tl.int64), tl.load(cu_ptr + b + 1).to(tl.int64)


@triton.jit
def load_rows(x_ptr, STEP, rows, mask, d, D):
    """Columns d of D of rows (int64) that are a step apart; zero outside the mask, and where d is too large."""
    # Zeros past D let products run over whole blocks of columns, also where BLOCK_D does not divide D.
    return tl.load(x_ptr + rows[:, None] * STEP + d[None, :], mask=mask[:, None] & (d[None, :] < D), other=0.0)


@triton.jit
def products_of_rows(
    q_ptr, Q_STEP, rows_q, mask_q, k_ptr, K_STEP, rows_k, mask_k, D,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The inner products of a tile's rows, BLOCK_D columns at a time; zero outside the masks."""
    # Only the sums stay in registers for the whole loop. q and k are on the chip a piece at a time: D sets the length
    # of the loop and not the memory, so a head of 768 columns needs no more of it than one of 64.
    products = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
    for first in range(0, D, BLOCK_D):
        d = first + tl.arange(0, BLOCK_D)
        q = load_rows(q_ptr, Q_STEP, rows_q, mask_q, d, D)
        k = load_rows(k_ptr, K_STEP, rows_k, mask_k, d, D)
        products = dot(q, tl.trans(k), products)
    return products


@triton.jit
def softmax_of_tile(s, mask):
    """The softmax of each row of a tile that holds all keys of a segment; each row's maximum and sum of exponentials.

    Zero outside the mask; a row without keys has zeros, -inf and 1.
    """
    s = tl.where(mask, s, float("-inf"))
    top = tl.max(s, axis=1)
    # -inf - -inf is NaN, so 0 is subtracted where a row has no key.
    p = tl.exp(s - tl.where(top == float("-inf"), 0.0, top)[:, None])
    total = tl.sum(p, axis=1)
    total = tl.where(total == 0.0, 1.0, total)
    return p / total[:, None], top, total


@triton.jit
def softmax_step(s, mask, top, total):
    """One more tile of keys: exponentials of s below the new maximum, by what earlier ones shrink, maximum and sum."""
    s = tl.where(mask, s, float("-inf"))
    # Callers mask by key alone and loop over existing keys, so `higher` is finite and -inf - -inf does not occur.
    higher = tl.maximum(top, tl.max(s, axis=1))
    p = tl.exp(s - higher[:, None])
    # At the first tile top is -inf and shrink is 0, so the sums need no special start.
    shrink = tl.exp(top - higher)
    return p, shrink, higher, total * shrink + tl.sum(p, axis=1)


def tile(longest_q: int, longest_k: int) -> dict[str, int]:
    """The tile for segments of up to so many queries and keys: powers of two from 16, a tensor core's least."""
    return {"BLOCK_Q": columns(longest_q, TILE), "BLOCK_K": columns(longest_k, TILE)}


def columns(count: int, most: int) -> int:
    """Columns, or rows, to take at once out of `count`."""
    return min(most, max(16, triton.next_power_of_2(count)))


def takes_registers(dtype: torch.dtype, *widths: int) -> bool:
    """Whether a thread needs many registers for a column, so that few columns can be taken at once.

    Exact products of float32 have no tensor cores, so a thread holds their operands. Columns that do not come in
    sixteens are loaded one by one, each with its address.
    """
    return dtype == torch.float32 or any(width % 16 for width in widths)


def compilation(blocks: dict[str, int], few: bool) -> dict[str, int]:
    """Warps and stages for tiles that hold all keys; `few` columns are taken at once."""
    # Eight warps halve a thread's part of a large tile. With four, 64 x 64 weights spill in attention_weights (24 to 38
    # instructions), and in the backward pass of sigmoid_attention in float32 (some 7,000; Triton 3.8, sm_80). Small
    # tiles have no work for eight: 16 x 64 scores are eight 16 x 8 products of tensor cores, two for each of 4 warps.
    return {"num_warps": 8 if blocks["BLOCK_Q"] * blocks["BLOCK_K"] >= 2048 else 4, "num_stages": 2 if few else 3}
