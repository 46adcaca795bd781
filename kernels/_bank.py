"""What the kernels of the prototype bank share.

N rows, K prototypes, D columns, P numbers. Products accumulate in float32. Those of float32 are exact to its rounding
with precision "ieee", and are three products of TF32 on tensor cores with "tf32x3" (`_dot.dot`).

In float32 an H200 multiplies faster with cuBLAS than with "ieee" (docs/h200.md): prototype_lookup's forward of 1,034
rows takes 180 us here and 123 us in plain PyTorch. "tf32x3" is not measured on a GPU. So the ops choose these kernels
for bfloat16 and float16, and for float32 on request.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels._dot import dot
from prior_fast.kernels.common.launch import launch

# How most products are compiled. Two stages load the next pieces during the product of these. Eight warps have
# registers for tiles of 64 x 64 of any dtype and size. Four do not where 16 does not divide the bank's sides:
# prototype_kl's gradient of rows then spills 26 instructions in float32 and 109 in bfloat16 (Triton 3.8, sm_80).
SCHEDULE = {"num_warps": 8, "num_stages": 2}


# The sides of the tiles of a product in "tf32x3", by the dimension that a program runs over. Tensor cores would take
# larger ones than "ieee", but each operand is in registers twice, as its high and its low part. In Triton 3.8:
# - 64 x 64 makes each warp multiply twice on sm_80. The three products, each of which adds to the one before, count as
#   a chain: Triton divides one side among the 8 warps, the rows unless the columns are more, and 64 rows are work for 4
#   warps. Of 32 x 64 it divides the columns, into 8 times 8: half the instructions, and in prototype_lookup's gradient
#   of the bank 80 registers instead of 180, which leaves 3 blocks on a multiprocessor instead of 1.
# - 32 x 128 takes 255 registers or spills in the gradient of the bank, 64 x 64 with 64 rows spills in prototype_kl.
# - Pieces of 32 along D spill with some kinds of noise (sm_80), and leave 2 blocks where 16 leave 3 or 4. Along K they
#   take 249 registers in prototype_kl's gradient of rows, where 16 take 165.
# On sm_90, 64 x 64 would run as HGMMA and 32 x 64 runs as HMMA. One choice serves both.
_TF32X3_TILES = {
    "D": {"N": 32, "K": 64, "D": 16},
    "K": {"N": 32, "K": 16, "D": 64},
    "N": {"N": 16, "K": 32, "D": 64},
}


@triton.jit
def load_tile(ptr, row, column, ROWS, COLUMNS):
    """The numbers at rows x columns of a matrix [ROWS, COLUMNS], zeros outside it; row is int64."""
    mask = (row[:, None] < ROWS) & (column[None, :] < COLUMNS)
    return tl.load(ptr + (row * COLUMNS)[:, None] + column[None, :], mask=mask, other=0.0)


@triton.jit
def load_row_tile(ptr, n, k, N, K, outside):
    """The numbers at n x k of a matrix [N, K], `outside` for k past the end; n past the end reads the last row.

    N is at least 1. What is made of such a row is not stored, or is multiplied by zeros, so it has to be finite.
    """
    # The row is clamped, not masked with -inf: in prototype_kl the difference of two such rows would be NaN, and NaN
    # times the zeros of a row past the end would get into the bank's gradient.
    row = tl.minimum(n, N - 1)
    return tl.load(ptr + (row * K)[:, None] + k[None, :], mask=k[None, :] < K, other=outside)


@triton.jit
def load_logits(logits_ptr, n, k, N, K):
    """`load_row_tile` of logits: minus infinity for k past the end, which gives weights of 0."""
    return load_row_tile(logits_ptr, n, k, N, K, float("-inf"))


@triton.jit
def inverse_temperature(tau_ptr):
    """1 / tau, float32; tau at the ends of float32's range is taken for a number that has an inverse.

    An infinite inverse would make a NaN of the greatest logit, whose difference is 0, and a zero one of those past the
    end, which are minus infinity. No logits are so large or so near that the difference shows. A NaN stays one.
    """
    tau = tl.load(tau_ptr).to(tl.float32)
    return 1.0 / tl.where(tau < 1e-30, 1e-30, tl.where(tau > 1e30, 1e30, tau))


@triton.jit
def gradient_dot(a, b, total, dtype: tl.constexpr, precision: tl.constexpr):
    """total + a b, for gradients of inputs of `dtype`; `precision` as in `dot`.

    Gradients may lie outside float16's range where its inputs do not, so there the product is taken in TF32, which has
    float16's mantissa and float32's exponent.
    """
    # For example, l1 gives each element a share of 1 / (N D), 1.3e-6 at N = 1,034 and D = 768. float16's least normal
    # number is 6.1e-5. TF32's operands are float32 and take twice the shared memory.
    if dtype == tl.float16:
        result = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="tf32")
    else:
        result = dot(a.to(dtype), b.to(dtype), total, precision)
    return result


@triton.jit(do_not_specialize=["P"])
def _mean_kernel(parts_ptr, mean_ptr, P, count, BLOCK_P: tl.constexpr):
    """The sum of P numbers over `count`, in one program: always in the same order."""
    # P changes with each batch; specialized, a 1 and multiples of 16 would each compile a version. Atomic additions in
    # the kernels before would spare this launch, but their order varies.
    total = tl.zeros([BLOCK_P], tl.float32)
    for first in range(0, P, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        total += tl.load(parts_ptr + p, mask=p < P, other=0.0)
    tl.store(mean_ptr, tl.sum(total, axis=0) / count)


def mean(parts: Tensor, count: int) -> Tensor:
    """The sum of `parts`, float32 and contiguous, over max(count, 1) -> [] float32."""
    result = parts.new_empty(())
    arguments = {"parts_ptr": parts, "mean_ptr": result, "P": parts.numel(), "count": float(max(count, 1))}
    launch(_mean_kernel, (1,), arguments, {"BLOCK_P": 1024})
    return result


def tiles(sizes: dict[str, int], dtype: torch.dtype, summed: str, precision: str) -> dict[str, Any]:
    """Sides of the tiles of a product, BLOCK_<letter>, by the letters and sizes of its dimensions, and its PRECISION.

    precision: of float32; other dtypes are compiled once for all precisions.

    `summed` is the dimension that a program runs over. Its pieces go through registers, so they are short. Few rows
    are cut finer than many, so that there are tiles for all processors of a GPU.
    """
    if dtype == torch.float32 and precision == "tf32x3":
        # These do not follow the sizes: of a square tile, too, each warp would multiply more than its share.
        return {f"BLOCK_{letter}": side for letter, side in _TF32X3_TILES[summed].items()} | {"PRECISION": precision}
    # At N = 1,034 and K = 512, tiles of 32 rows are 33 x 8 = 264, two for each of an H200's 132 multiprocessors; tiles
    # of 64 would be 136. From 4,096 rows on there are enough, and 64 rows read the bank half as often.
    limits = dict.fromkeys(sizes, 64) | {"N": 64 if sizes["N"] >= 4096 else 32}
    # In prototype_kl's gradient of rows, pieces of 32 take 222 registers in float32 where 16 take 154, and spill where
    # 16 does not divide the bank's sides. So do pieces of 32 rows in the gradient of the bank (Triton 3.8, sm_80).
    limits[summed] = 16 if summed == "N" or dtype == torch.float32 else 32
    # A side is a power of two, 16 at least; that of the rows does not follow their number, which changes at each call.
    sides = {
        f"BLOCK_{letter}": limit if letter == "N" else min(limit, max(16, triton.next_power_of_2(sizes[letter])))
        for letter, limit in limits.items()
    }
    return sides | {"PRECISION": "ieee"}


def over_tiles(sizes: dict[str, int], constants: dict[str, Any], letters: str) -> tuple[int, ...]:
    """The grid that covers these dimensions; only where there are no rows is it empty, since rows without a column have
    results too."""
    counts = (triton.cdiv(sizes[letter], constants[f"BLOCK_{letter}"]) for letter in letters)
    return tuple(count if letter == "N" else max(count, 1) for letter, count in zip(letters, counts, strict=True))
