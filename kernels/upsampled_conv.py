"""A 3x3 convolution of a x2 upsampled image as implicit matrix products, forward and gradient of the input.

B images of H x W pixels, C channels in and N out, the channels innermost. In terms of the small image the convolution
is a 4x4 transposed convolution of stride 2 and padding 1, with taps w [4, C, 4, N]. With d = u - 1 + p and
e = v - 1 + q for u, v in {0, 1},

    y[b, 2 i + p, 2 j + q] = sum over u, v of x[b, i + d, j + e] w[3 - p - 2 u, :, 3 - q - 2 v]
    dx[b, i, j]            = sum over r, s of dy[b, 2 i - 1 + r, 2 j - 1 + s] w[r, :, s]^T

and pixels outside of the image are zeros. M = B H W rows of x are cut into tiles that pay no attention to images.

Forward: a program makes both pixels of a row's pair, q = 0 and 1, for one p. Shares of the loads per product of tiles:

    one pixel of the four     4 tiles of x and 4 of w for 4 products    x is read 16 times in all
    a pair (this kernel)      6 tiles of x and 8 of w for 8 products    12 times
    all four                  9 tiles of x and 16 of w for 16 products   9 times

x is read from the L2 cache each time, and with 48 channels of y this takes as long as the products. All four pixels
would need four accumulators. A pair of 128 x 64 numbers takes 64 registers of each of 256 threads, and with the tiles
of the products 200 of the 255 that there are on sm_80. A pair also writes 2 N neighbouring numbers: 192 bytes for 48
channels. Programs of neighbouring tiles of x run together (GROUP), for both p and all n.

Backward: the four taps of a row are 4 N neighbouring numbers of dy and of w, so they are one product over 4 N columns
without gaps, also where N is no multiple of the tile.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels._dot import dot
from prior_fast.kernels._joined_moments import join_moments, tile_moments
from prior_fast.kernels.common.launch import launch

# Tiles of x whose programs run together, so that they find x and w in the L2 cache.
GROUP = 8


class Tiles(NamedTuple):
    """Rows of x and columns of the result in a tile, the columns of each product, warps and stages of the pipeline."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


# For float32, whose products take registers in place of tensor cores, and for ragged channels. Fewer columns would
# spill registers on sm_90.
SMALL = Tiles(32, 32, 16, 4, 1)


@triton.jit
def _tile_of_program(tiles, others, GROUP: tl.constexpr):
    """The program's tile of x, and its number among the `others` programs of that tile."""
    program = tl.program_id(0)
    begin = program // (GROUP * others) * GROUP
    members = tl.minimum(tiles - begin, GROUP)
    place = program - begin * others
    return begin + place % members, place // members


@triton.jit
def _pixels(first, H, W, BLOCK_M: tl.constexpr):
    """Row and column in their image of pixels first, first + 1, ..."""
    # Only the first one needs 64 bits; divisions of 64 bits take many instructions.
    j = (first % W).to(tl.int32) + tl.arange(0, BLOCK_M)
    i = (first // W % H).to(tl.int32) + j // W
    return i % H, j % W


@triton.jit
def _upsampled_conv_fwd_kernel(
    x_ptr, w_ptr, bias_ptr, y_ptr, counts_ptr, parts_ptr, M, H, W, C, N, tiles,
    RELU: tl.constexpr, GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """y, and if parts_ptr is given the count, mean and sum of squared deviations of the program's columns of y."""
    tile, other = _tile_of_program(tiles, 2 * tl.cdiv(N, BLOCK_N), GROUP)
    p, n = other % 2, other // 2 * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tile.to(tl.int64) * BLOCK_M
    m = tl.arange(0, BLOCK_M)
    i, j = _pixels(first, H, W, BLOCK_M)
    inside, mask_n = first + m < M, n < N
    has_left, has_right = inside & (j > 0), inside & (j < W - 1)

    # Places within the tile fit 32 bits; its first one may not.
    x_ptr += first * C
    steps = tl.cdiv(C, BLOCK_K)
    even = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    odd = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    # One loop over both rows of x, so that its pipeline fills once.
    for step in range(2 * steps):
        u = step // steps
        c = step % steps * BLOCK_K + tl.arange(0, BLOCK_K)
        mask_c = c < C
        d = u - 1 + p
        mask = ((i + d >= 0) & (i + d < H))[:, None] & mask_c[None, :]
        place = ((m + d * W) * C)[:, None] + c[None, :]
        left = tl.load(x_ptr + (place - C), mask=mask & has_left[:, None], other=0.0)
        middle = tl.load(x_ptr + place, mask=mask & inside[:, None], other=0.0)
        right = tl.load(x_ptr + (place + C), mask=mask & has_right[:, None], other=0.0)
        tap = (((3 - p - 2 * u) * C + c) * 4 * N)[:, None] + n[None, :]
        mask_w = mask_c[:, None] & mask_n[None, :]
        even = dot(left, tl.load(w_ptr + (tap + 3 * N), mask=mask_w, other=0.0), even)
        even = dot(middle, tl.load(w_ptr + (tap + N), mask=mask_w, other=0.0), even)
        odd = dot(middle, tl.load(w_ptr + (tap + 2 * N), mask=mask_w, other=0.0), odd)
        odd = dot(right, tl.load(w_ptr + tap, mask=mask_w, other=0.0), odd)

    if bias_ptr is not None:
        bias = tl.load(bias_ptr + n, mask=mask_n, other=0.0).to(tl.float32)[None, :]
        even += bias
        odd += bias
    if RELU:
        # Comparisons, since a maximum would turn NaN into 0.
        even = tl.where(even < 0.0, 0.0, even)
        odd = tl.where(odd < 0.0, 0.0, odd)
    # Pixel (2 i + p, 2 j) of the image that has pixel m of x is number 4 m - 2 j + 2 p W.
    y_ptr += (4 * first + 2 * p * W) * N
    place = ((4 * m - 2 * j) * N)[:, None] + n[None, :]
    mask_y = inside[:, None] & mask_n[None, :]
    even = even.to(y_ptr.dtype.element_ty)
    odd = odd.to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + place, even, mask=mask_y)
    tl.store(y_ptr + (place + N), odd, mask=mask_y)
    if parts_ptr is not None:
        # Of the rounded values: the normalization that uses the moments reads these.
        part = tile.to(tl.int64) * 2 + p
        rows = tl.minimum(M - first, BLOCK_M).to(tl.float32) * 2.0
        mean, squares = tile_moments(even.to(tl.float32), odd.to(tl.float32), mask_y, rows)
        tl.store(parts_ptr + part * 2 * N + n, mean, mask=mask_n)
        tl.store(parts_ptr + part * 2 * N + N + n, squares, mask=mask_n)
        # Programs of other columns write the same number.
        tl.store(counts_ptr + part, rows)


@triton.jit
def _upsampled_conv_bwd_kernel(
    dy_ptr, w_ptr, dx_ptr, M, H, W, C, N, tiles,
    GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dx: for each of four rows of dy, a product over the 4 N columns of four neighbouring pixels."""
    tile, other = _tile_of_program(tiles, tl.cdiv(C, BLOCK_N), GROUP)
    c = other * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tile.to(tl.int64) * BLOCK_M
    m = tl.arange(0, BLOCK_M)
    i, j = _pixels(first, H, W, BLOCK_M)
    inside, mask_c = first + m < M, c < C

    # The first of a row's four pixels is (2 i - 1 + r, 2 j - 1): number 4 m - 2 j - 1 + (r - 1) 2 W.
    dy_ptr += 4 * first * N
    place_m = (4 * m - 2 * j - 1) * N
    steps = tl.cdiv(4 * N, BLOCK_K)
    dx = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for step in range(4 * steps):
        r = step // steps
        k = step % steps * BLOCK_K + tl.arange(0, BLOCK_K)
        row = 2 * i - 1 + r
        # The first pixel has no place in column 0, the last one has none in the last column.
        mask_k = ((k >= N)[None, :] | (j > 0)[:, None]) & ((k < 3 * N)[None, :] | (j < W - 1)[:, None])
        mask = (inside & (row >= 0) & (row < 2 * H))[:, None] & mask_k & (k < 4 * N)[None, :]
        dy = tl.load(dy_ptr + ((place_m + (r - 1) * 2 * W * N)[:, None] + k[None, :]), mask=mask, other=0.0)
        w_place = ((r * C + c) * 4 * N)[:, None] + k[None, :]
        w = tl.load(w_ptr + w_place, mask=mask_c[:, None] & (k < 4 * N)[None, :], other=0.0)
        dx = dot(dy, tl.trans(w), dx)
    tl.store(dx_ptr + first * C + (m * C)[:, None] + c[None, :], dx, mask=inside[:, None] & mask_c[None, :])


def forward_tiles(x: Tensor, width: int) -> Tiles:
    """The tiles of the forward pass for `width` channels of y; there are two accumulators of rows x columns.

    128 x 128 would read x from the cache half as often where y is wide, but spills registers on sm_80.
    """
    if x.dtype == torch.float32 or _ragged(x, width):
        return SMALL
    return Tiles(128, _columns(width, 64), 32, 8, 3)


def backward_tiles(dy: Tensor, width: int) -> Tiles:
    """The tiles of the backward pass for `width` channels of x."""
    if dy.dtype == torch.float32 or _ragged(dy, width):
        return SMALL
    # 192 columns are three blocks of 64; two of 128 would multiply a quarter of zeros.
    block = _columns(width, 64 if 0 < width % 128 <= 64 else 128)
    return Tiles(128, block, 64, 8 if block == 128 else 4, 3)


def _columns(width: int, most: int) -> int:
    return min(most, max(16, triton.next_power_of_2(width)))


def _ragged(x: Tensor, width: int) -> bool:
    """Whether channels are no multiple of 16: then numbers are loaded one by one, which takes registers for each."""
    return x.shape[3] % 16 != 0 or width % 16 != 0


def upsampled_conv_fwd(x: Tensor, w: Tensor, bias: Tensor | None, relu: bool, moments: bool) -> tuple[Tensor, Tensor]:
    """y [B, 2 H, 2 W, N] and its mean and biased variance [2, N] float32, or [0] without `moments`.

    x [B, H, W, C], w [4, C, 4, N] and bias [N], contiguous and of one dtype.
    """
    batch, height, width, _ = x.shape
    outer, rows = w.shape[3], batch * height * width
    tiles = forward_tiles(x, outer)
    count = triton.cdiv(rows, tiles.rows)
    y = x.new_empty(batch, 2 * height, 2 * width, outer)
    counts = parts = None
    if moments:
        counts = x.new_empty(2 * count, dtype=torch.float32)
        parts = x.new_empty(2 * count, 2, outer, dtype=torch.float32)
    arguments: dict[str, Any] = {"x_ptr": x, "w_ptr": w, "bias_ptr": bias, "y_ptr": y}
    arguments |= {"counts_ptr": counts, "parts_ptr": parts, **_sizes(x.shape, outer, count)}
    programs = count * 2 * triton.cdiv(outer, tiles.columns)
    _launch(_upsampled_conv_fwd_kernel, programs, arguments, {"RELU": relu}, tiles)
    if counts is None or parts is None:
        return y, x.new_empty(0, dtype=torch.float32)
    return y, join_moments(counts, parts)


def upsampled_conv_bwd(dy: Tensor, w: Tensor) -> Tensor:
    """dx [B, H, W, C] for dy [B, 2 H, 2 W, N] and w [4, C, 4, N], contiguous and of one dtype."""
    batch, height, width, outer = dy.shape
    dx = dy.new_empty(batch, height // 2, width // 2, w.shape[1])
    tiles = backward_tiles(dy, w.shape[1])
    count = triton.cdiv(dx.shape[0] * dx.shape[1] * dx.shape[2], tiles.rows)
    arguments: dict[str, Any] = {"dy_ptr": dy, "w_ptr": w, "dx_ptr": dx, **_sizes(dx.shape, outer, count)}
    programs = count * triton.cdiv(w.shape[1], tiles.columns)
    _launch(_upsampled_conv_bwd_kernel, programs, arguments, {}, tiles)
    return dx


def _sizes(shape: torch.Size, outer: int, count: int) -> dict[str, int]:
    batch, height, width, inner = shape
    return {"M": batch * height * width, "H": height, "W": width, "C": inner, "N": outer, "tiles": count}


def _launch(kernel: object, programs: int, arguments: dict[str, Any], constants: dict[str, Any], tiles: Tiles) -> None:
    constants = {**constants, "GROUP": GROUP}
    constants |= {"BLOCK_M": tiles.rows, "BLOCK_N": tiles.columns, "BLOCK_K": tiles.depth}
    launch(kernel, (programs,), arguments, constants, num_warps=tiles.warps, num_stages=tiles.stages)
