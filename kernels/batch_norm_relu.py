"""Batch normalization of images with a ReLU before or after it, forward and backward.

N pixels are rows of C channels, which lie side by side in memory; neighbouring rows may be further apart. Each
direction reads the images twice: once for sums over the rows, and once for the result. A program of the first pass
takes every PARTS-th tile of rows, and writes its own sums to a buffer in float32. They are added in one order, without
atomics: results are the same in every run.

Few parts are added by every program of the second pass, whose channels have PARTS * BLOCK_C pairs of numbers in the L2
cache: a launch less. Many parts are added once, by a launch of its own.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels.common.launch import launch

NONE, BEFORE, AFTER = 0, 1, 2  # `activation`: no ReLU, or one before or after the normalization
GRID = 65535  # programs along a grid's second axis that CUDA allows
FINAL_C = 8  # channels of a program that adds parts: 32 bytes, the least that memory transfers


@dataclass(frozen=True)
class Tiles:
    """Sizes of the launches.

    Attributes:
        columns: channels of a program.
        sum_rows: rows of a tile of the first pass; each thread keeps its own sums for its places in a tile.
        unroll: tiles that a program of the first pass reads at once.
        programs: programs of the first pass, over all channels.
        sum_warps: warps of the first pass.
        rows: rows of a tile of the second pass.
        tiles_each: tiles of a program of the second pass, where it does not add parts.
        warps: warps of the second pass.
        few: parts that each program of the second pass adds itself; more of them are added by a launch.
        own_programs: programs of the second pass, over all channels, where each adds the parts.
    """

    columns: int
    sum_rows: int
    unroll: int
    programs: int = 528  # four for each multiprocessor of an H100
    sum_warps: int = 4
    rows: int = 64
    tiles_each: int = 1
    warps: int = 4
    few: int = 48
    own_programs: int = 1056


def tiles(channels: int) -> Tiles:
    """The sizes for images of so many channels."""
    # With 64 channels of bfloat16, eight threads read the 128 bytes of a row, 16 at a time.
    columns = min(64, max(16, triton.next_power_of_2(channels)))
    if channels % 16:
        # Numbers are then read one by one, and each has its own address: of larger tiles registers spill.
        return Tiles(columns, sum_rows=1024 // columns, unroll=1, rows=1024 // columns)
    # 1,024 numbers are 8 a thread with four warps. All tiles of a step are read before the first is used: 8 KB in
    # bfloat16, and with four programs on a multiprocessor 32 KB. Memory with a latency of 0.7 us needs 26 KB. Eight
    # tiles at once spill registers with Triton 3.6.
    return Tiles(columns, sum_rows=1024 // columns, unroll=4, rows=4096 // columns)


@triton.jit
def _load(ptr, offsets, mask, WHOLE: tl.constexpr):
    """Numbers in float32; zero outside of the mask, which is not needed if WHOLE."""
    if WHOLE:
        x = tl.load(ptr + offsets)
    else:
        x = tl.load(ptr + offsets, mask=mask, other=0.0)
    return x.to(tl.float32)


@triton.jit
def _entering(x, ACTIVATION: tl.constexpr):
    """The numbers that are normalized; a NaN stays a NaN."""
    if ACTIVATION == 1:
        x = tl.where(x < 0.0, 0.0, x)
    return x


@triton.jit
def _rows_of_part(part, parts, N, TILE: tl.constexpr):
    """Rows of a part: the tiles part, part + parts, ..., of which the last may be short."""
    whole = N // TILE
    count = (tl.maximum(whole - part, 0) + parts - 1) // parts
    return (count * TILE + tl.where(part == whole % parts, N - whole * TILE, 0)).to(tl.float32)


@triton.jit
def _join_moments(parts_ptr, parts, c, N, C, TILE: tl.constexpr, BLOCK_P: tl.constexpr):
    """The mean and the sum of squared distances from it [BLOCK_C], of those of the parts: Chan's formula."""
    # Distances from the first part's mean: sums of means far from zero would lose digits.
    near = tl.load(parts_ptr + c, mask=c < C, other=0.0)
    shift = near * 0.0
    for first in range(0, parts, BLOCK_P):
        part = first + tl.arange(0, BLOCK_P)
        mask = (part[:, None] < parts) & (c[None, :] < C)
        mean = tl.load(parts_ptr + part[:, None] * C + c[None, :], mask=mask, other=0.0)
        rows = tl.where(part < parts, _rows_of_part(part, parts, N, TILE), 0.0)
        shift += tl.sum(rows[:, None] * (mean - near[None, :]), axis=0)
    joined = near + shift / N
    squares = near * 0.0
    for first in range(0, parts, BLOCK_P):
        part = first + tl.arange(0, BLOCK_P)
        mask = (part[:, None] < parts) & (c[None, :] < C)
        mean = tl.load(parts_ptr + part[:, None] * C + c[None, :], mask=mask, other=0.0)
        own = tl.load(parts_ptr + (parts + part[:, None]) * C + c[None, :], mask=mask, other=0.0)
        rows = tl.where(part < parts, _rows_of_part(part, parts, N, TILE), 0.0)
        squares += tl.sum(own + rows[:, None] * (mean - joined[None, :]) * (mean - joined[None, :]), axis=0)
    return joined, squares


@triton.jit
def _join_sums(parts_ptr, parts, c, C, BLOCK_P: tl.constexpr):
    """The two sums [BLOCK_C] over the parts."""
    total = tl.zeros(c.shape, tl.float32)
    products = tl.zeros(c.shape, tl.float32)
    for first in range(0, parts, BLOCK_P):
        part = first + tl.arange(0, BLOCK_P)
        mask = (part[:, None] < parts) & (c[None, :] < C)
        total += tl.sum(tl.load(parts_ptr + part[:, None] * C + c[None, :], mask=mask, other=0.0), axis=0)
        other = tl.load(parts_ptr + (parts + part[:, None]) * C + c[None, :], mask=mask, other=0.0)
        products += tl.sum(other, axis=0)
    return total, products


@triton.jit
def _batch_norm_relu_moments_kernel(
    x_ptr,
    parts_ptr,
    N,
    C,
    x_stride,
    ACTIVATION: tl.constexpr,
    WHOLE: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The mean and the sum of squared distances from it, of the rows of a part and BLOCK_C channels."""
    # Programs that run side by side read the channels of the same rows.
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    part, parts = tl.program_id(1), tl.num_programs(1)
    TILE: tl.constexpr = UNROLL * BLOCK_R
    r = tl.arange(0, BLOCK_R)
    # The sum over the first axis is within a thread: all its threads lie along rows and channels.
    row = tl.arange(0, UNROLL)[:, None] * BLOCK_R + r[None, :]
    offsets = row[:, :, None] * x_stride + c[None, None, :]
    channel = (c < C)[None, None, :]
    # 64 bits for the start of a tile, 32 within it.
    ptr = x_ptr + part.to(tl.int64) * TILE * x_stride
    step = parts.to(tl.int64) * TILE * x_stride
    # Each place of a tile measures its numbers from its own first one. The squares of numbers far from zero would lose
    # the digits in which they differ, and a first number that is far from all others spoils only its own place.
    start = (part * TILE + r)[:, None] < N
    near = _load(ptr, r[:, None] * x_stride + c[None, :], start & (c < C)[None, :], False)
    near = _entering(near, ACTIVATION)
    base = _entering(_load(ptr, c, c < C, False), ACTIVATION)
    # Before the loop: Triton 3.6 does not compile it after the branch below.
    apart = near - base[None, :]
    near = near[None, :, :]
    total = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    whole = N // TILE
    for _ in range(part, whole, parts):
        x = _entering(_load(ptr, offsets, channel, WHOLE), ACTIVATION)
        d = x - near
        total += tl.sum(d, axis=0)
        squares += tl.sum(d * d, axis=0)
        ptr += step
    count = tl.zeros([BLOCK_R], tl.int32) + (tl.maximum(whole - part, 0) + parts - 1) // parts * UNROLL
    left = N - whole * TILE
    if (part == whole % parts) & (left > 0):
        # The short tile at the end.
        mask = (row < left)[:, :, None] & channel
        x = _entering(_load(ptr, offsets, mask, False), ACTIVATION)
        d = tl.where(mask, x - near, 0.0)
        total += tl.sum(d, axis=0)
        squares += tl.sum(d * d, axis=0)
        count += tl.sum((row < left).to(tl.int32), axis=0)
    # From the places of a tile to the part, by the same formula as from the parts to all rows.
    rows = count.to(tl.float32)[:, None]
    shift = total / tl.maximum(rows, 1.0)
    squares = tl.maximum(squares - shift * total, 0.0)
    # Means are measured from the part's first row: next to numbers far from zero they would be rounded.
    mean = tl.where(rows > 0.0, apart + shift, 0.0)
    joined = tl.sum(rows * mean, axis=0) / tl.sum(count, axis=0).to(tl.float32)
    distance = mean - joined[None, :]
    squares = tl.sum(squares + rows * distance * distance, axis=0)
    tl.store(parts_ptr + part * C + c, base + joined, mask=c < C)
    tl.store(parts_ptr + (parts + part) * C + c, squares, mask=c < C)


@triton.jit
def _batch_norm_relu_join_moments_kernel(
    parts_ptr, moments_ptr, parts, N, C, TILE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    """moments[0] = mean, moments[1] = unbiased variance, of BLOCK_C channels."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    mean, squares = _join_moments(parts_ptr, parts, c, N, C, TILE, BLOCK_P)
    tl.store(moments_ptr + c, mean, mask=c < C)
    tl.store(moments_ptr + C + c, squares / (N - 1), mask=c < C)


@triton.jit
def _batch_norm_relu_join_sums_kernel(parts_ptr, sums_ptr, parts, C, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """sums[0] = gradient of the bias, sums[1] = gradient of the weight, of BLOCK_C channels."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total, products = _join_sums(parts_ptr, parts, c, C, BLOCK_P)
    tl.store(sums_ptr + c, total, mask=c < C)
    tl.store(sums_ptr + C + c, products, mask=c < C)


@triton.jit
def _scales(moments_ptr, weight_ptr, bias_ptr, c, eps, N, C, WEIGHT: tl.constexpr, BIAS: tl.constexpr):
    """The mean, 1 / deviation, weight and bias [BLOCK_C]; zeros outside, also where eps is 0."""
    mean = tl.load(moments_ptr + c, mask=c < C, other=0.0)
    variance = tl.load(moments_ptr + C + c, mask=c < C, other=0.0) * ((N - 1) / N)
    weight, bias = _affine(weight_ptr, bias_ptr, c, C, WEIGHT, BIAS)
    return mean, tl.where(c < C, tl.rsqrt(variance + eps), 0.0), weight, bias


@triton.jit
def _affine(weight_ptr, bias_ptr, c, C, WEIGHT: tl.constexpr, BIAS: tl.constexpr):
    """The weight and the bias [BLOCK_C]; zeros outside."""
    weight = tl.where(c < C, 1.0, 0.0)
    bias = tl.zeros(c.shape, tl.float32)
    if WEIGHT:
        weight = tl.load(weight_ptr + c, mask=c < C, other=0.0)
    if BIAS:
        bias = tl.load(bias_ptr + c, mask=c < C, other=0.0)
    return weight, bias


@triton.jit
def _batch_norm_relu_fwd_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    moments_ptr,
    parts_ptr,
    y_ptr,
    eps,
    N,
    C,
    WIDTH,
    x_stride,
    residual_stride,
    parts,
    ACTIVATION: tl.constexpr,
    RESIDUAL: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    JOIN: tl.constexpr,
    SUM_TILE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """y = (x - mean) / deviation * weight + bias (+ residual), with its ReLU; zeros in channels C .. WIDTH - 1.

    JOIN: the moments are those of the parts, and the first program of each block of channels stores them.
    """
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    if JOIN:
        mean, squares = _join_moments(parts_ptr, parts, c, N, C, SUM_TILE, BLOCK_P)
        deviation = tl.where(c < C, tl.rsqrt(squares / N + eps), 0.0)
        weight, bias = _affine(weight_ptr, bias_ptr, c, C, WEIGHT, BIAS)
        if tl.program_id(1) == 0:
            tl.store(moments_ptr + c, mean, mask=c < C)
            tl.store(moments_ptr + C + c, squares / (N - 1), mask=c < C)
    else:
        mean, deviation, weight, bias = _scales(moments_ptr, weight_ptr, bias_ptr, c, eps, N, C, WEIGHT, BIAS)
    scale = deviation * weight
    r = tl.arange(0, BLOCK_R)
    count = tl.cdiv(N, BLOCK_R)
    for t in range(tl.program_id(1), count, tl.num_programs(1)):
        # From the end: the first pass has left the last rows in the L2 cache.
        tile = count - 1 - t
        first = tl.cast(tile, tl.int64) * BLOCK_R
        within = (r < N - tile * BLOCK_R)[:, None]
        mask = within & (c < C)[None, :]
        x = _load(x_ptr + first * x_stride, r[:, None] * x_stride + c[None, :], mask, False)
        y = (_entering(x, ACTIVATION) - mean[None, :]) * scale[None, :] + bias[None, :]
        if RESIDUAL:
            offsets = r[:, None] * residual_stride + c[None, :]
            y += _load(residual_ptr + first * residual_stride, offsets, mask, False)
        if ACTIVATION == 2:
            y = tl.where(y < 0.0, 0.0, y)
        offsets = r[:, None] * WIDTH + c[None, :]
        tl.store(y_ptr + first * WIDTH + offsets, y, mask=within & (c < WIDTH)[None, :])


@triton.jit
def _passed(dy, x, mean, scale, bias, ACTIVATION: tl.constexpr):
    """The gradient of the normalized numbers: dy where the ReLU after them has passed them."""
    if ACTIVATION == 2:
        y = (x - mean) * scale + bias
        dy = tl.where(y <= 0.0, 0.0, dy)
    return dy


@triton.jit
def _batch_norm_relu_sums_kernel(
    dy_ptr,
    x_ptr,
    y_ptr,
    weight_ptr,
    bias_ptr,
    moments_ptr,
    dresidual_ptr,
    parts_ptr,
    eps,
    N,
    C,
    dy_stride,
    x_stride,
    y_stride,
    ACTIVATION: tl.constexpr,
    RESIDUAL: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    WHOLE: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sums of g and of g * normalized x over the rows of a part, with g = dy where the ReLU has passed.

    RESIDUAL: g is where y is not zero, and is stored: it is the gradient of the residual, and the second pass reads it
    in place of dy and y.
    """
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    part, parts = tl.program_id(1), tl.num_programs(1)
    TILE: tl.constexpr = UNROLL * BLOCK_R
    mean, deviation, weight, bias = _scales(moments_ptr, weight_ptr, bias_ptr, c, eps, N, C, WEIGHT, BIAS)
    scale = (deviation * weight)[None, None, :]
    row = tl.arange(0, UNROLL)[:, None] * BLOCK_R + tl.arange(0, BLOCK_R)[None, :]
    row = row[:, :, None]
    column = c[None, None, :]
    channel = column < C
    total = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    products = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    first = part.to(tl.int64) * TILE
    whole = N // TILE
    for _ in range(part, whole, parts):
        dy = _load(dy_ptr + first * dy_stride, row * dy_stride + column, channel, WHOLE)
        x = _entering(_load(x_ptr + first * x_stride, row * x_stride + column, channel, WHOLE), ACTIVATION)
        if RESIDUAL:
            y = _load(y_ptr + first * y_stride, row * y_stride + column, channel, WHOLE)
            g = tl.where(y <= 0.0, 0.0, dy)
            if WHOLE:
                tl.store(dresidual_ptr + first * C + row * C + column, g)
            else:
                tl.store(dresidual_ptr + first * C + row * C + column, g, mask=channel)
        else:
            g = _passed(dy, x, mean[None, None, :], scale, bias[None, None, :], ACTIVATION)
        total += tl.sum(g, axis=0)
        products += tl.sum(g * (x - mean[None, None, :]), axis=0)
        first += parts * TILE
    left = N - whole * TILE
    if (part == whole % parts) & (left > 0):
        # The short tile at the end; outside of it dy is zero.
        mask = (row < left) & channel
        dy = _load(dy_ptr + first * dy_stride, row * dy_stride + column, mask, False)
        x = _entering(_load(x_ptr + first * x_stride, row * x_stride + column, mask, False), ACTIVATION)
        if RESIDUAL:
            y = _load(y_ptr + first * y_stride, row * y_stride + column, mask, False)
            g = tl.where(y <= 0.0, 0.0, dy)
            tl.store(dresidual_ptr + first * C + row * C + column, g, mask=mask)
        else:
            g = _passed(dy, x, mean[None, None, :], scale, bias[None, None, :], ACTIVATION)
        total += tl.sum(g, axis=0)
        products += tl.sum(g * (x - mean[None, None, :]), axis=0)
    tl.store(parts_ptr + part * C + c, tl.sum(total, axis=0), mask=c < C)
    tl.store(parts_ptr + (parts + part) * C + c, tl.sum(products, axis=0) * deviation, mask=c < C)


@triton.jit
def _batch_norm_relu_bwd_kernel(
    dy_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    moments_ptr,
    parts_ptr,
    sums_ptr,
    dx_ptr,
    eps,
    N,
    C,
    WIDTH,
    dy_stride,
    x_stride,
    parts,
    ACTIVATION: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    JOIN: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """dx = weight / deviation * (g - mean of g - normalized x * mean of their products); zeros from channel C on.

    JOIN: the sums are those of the parts, and the first program of each block of channels stores them.
    """
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    if JOIN:
        total, products = _join_sums(parts_ptr, parts, c, C, BLOCK_P)
        if tl.program_id(1) == 0:
            tl.store(sums_ptr + c, total, mask=c < C)
            tl.store(sums_ptr + C + c, products, mask=c < C)
    else:
        total = tl.load(sums_ptr + c, mask=c < C, other=0.0)
        products = tl.load(sums_ptr + C + c, mask=c < C, other=0.0)
    mean, deviation, weight, bias = _scales(moments_ptr, weight_ptr, bias_ptr, c, eps, N, C, WEIGHT, BIAS)
    scale = deviation * weight
    # dx = scale * g - slope * (x - mean) - level
    slope = scale * deviation * products / N
    level = scale * total / N
    r = tl.arange(0, BLOCK_R)
    count = tl.cdiv(N, BLOCK_R)
    for t in range(tl.program_id(1), count, tl.num_programs(1)):
        # From the end, as forward.
        tile = count - 1 - t
        first = tl.cast(tile, tl.int64) * BLOCK_R
        within = (r < N - tile * BLOCK_R)[:, None]
        mask = within & (c < C)[None, :]
        dy = _load(dy_ptr + first * dy_stride, r[:, None] * dy_stride + c[None, :], mask, False)
        given = _load(x_ptr + first * x_stride, r[:, None] * x_stride + c[None, :], mask, False)
        x = _entering(given, ACTIVATION)
        g = _passed(dy, x, mean[None, :], scale[None, :], bias[None, :], ACTIVATION)
        dx = scale[None, :] * g - slope[None, :] * (x - mean[None, :]) - level[None, :]
        if ACTIVATION == 1:
            dx = tl.where(given <= 0.0, 0.0, dx)
        offsets = r[:, None] * WIDTH + c[None, :]
        tl.store(dx_ptr + first * WIDTH + offsets, dx, mask=within & (c < WIDTH)[None, :])


def row_stride(x: Tensor) -> int | None:
    """Numbers in memory from one pixel of [B, C, h, w] to the next; None if they are uneven or channels are apart."""
    batch, channels, height, width = x.shape
    if channels > 1 and x.stride(1) != 1:
        return None
    found, pixels = None, 1
    for size, stride in ((width, x.stride(3)), (height, x.stride(2)), (batch, x.stride(0))):
        if size != 1:
            found = stride if found is None else found
            if stride != found * pixels:
                return None
        pixels *= size
    found = channels if found is None else found
    return found if found >= channels else None


def _images(x: Tensor, channels: int) -> Tensor:
    """An empty tensor like images `x`, of so many channels, which lie innermost and dense."""
    size = x.shape[0], channels, *x.shape[2:]
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _parts(rows: int, channels: int, chosen: Tiles) -> tuple[int, int]:
    """The rows of a tile of the first pass, and the parts; each part has a tile, at least a short one."""
    tile = chosen.sum_rows * chosen.unroll
    return tile, min(triton.cdiv(rows, tile), triton.cdiv(chosen.programs, triton.cdiv(channels, chosen.columns)))


def _second(rows: int, width: int, parts: int, chosen: Tiles) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid of the second pass and its constants; `width` is the number of channels that it writes."""
    blocks, count = triton.cdiv(width, chosen.columns), triton.cdiv(rows, chosen.rows)
    join = parts <= chosen.few
    each = triton.cdiv(chosen.own_programs, blocks) if join else triton.cdiv(count, chosen.tiles_each)
    constants = {
        "JOIN": join, "BLOCK_P": min(16, triton.next_power_of_2(parts)) if join else 1,
        "BLOCK_R": chosen.rows, "BLOCK_C": chosen.columns,
    }  # fmt: skip
    return (blocks, min(count, each, GRID)), constants


def batch_norm_relu_fwd(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: int,
    channels: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """Images [B, at least `channels`, h, w] -> y [B, `width`, h, w] and moments [2, `channels`].

    x, residual: with even rows, see `row_stride`; weight, bias: [channels] float32, contiguous.
    """
    batch, _, height, wide = x.shape
    rows, stride = batch * height * wide, row_stride(x)
    y = _images(x, width)
    moments = torch.empty(2, channels, dtype=torch.float32, device=x.device)
    chosen = tiles(channels)
    tile, parts = _parts(rows, channels, chosen)
    partial = torch.empty(2, parts, channels, dtype=torch.float32, device=x.device)
    launch(
        _batch_norm_relu_moments_kernel,
        (triton.cdiv(channels, chosen.columns), parts),
        {"x_ptr": x, "parts_ptr": partial, "N": rows, "C": channels, "x_stride": stride},
        {
            "ACTIVATION": activation, "WHOLE": channels % chosen.columns == 0, "UNROLL": chosen.unroll,
            "BLOCK_R": chosen.sum_rows, "BLOCK_C": chosen.columns,
        },
        num_warps=chosen.sum_warps,
    )  # fmt: skip
    grid, constants = _second(rows, width, parts, chosen)
    if not constants["JOIN"]:
        launch(
            _batch_norm_relu_join_moments_kernel,
            (triton.cdiv(channels, FINAL_C),),
            {"parts_ptr": partial, "moments_ptr": moments, "parts": parts, "N": rows, "C": channels},
            {"TILE": tile, "BLOCK_P": _join_rows(parts), "BLOCK_C": FINAL_C},
        )
    arguments = {
        "x_ptr": x, "residual_ptr": x if residual is None else residual, "weight_ptr": moments if weight is None
        else weight, "bias_ptr": moments if bias is None else bias, "moments_ptr": moments, "parts_ptr": partial,
        "y_ptr": y, "eps": eps, "N": rows, "C": channels, "WIDTH": width, "x_stride": stride,
        "residual_stride": stride if residual is None else row_stride(residual), "parts": parts,
    }  # fmt: skip
    flags = {"ACTIVATION": activation, "RESIDUAL": residual is not None, "WEIGHT": weight is not None}
    flags |= {"BIAS": bias is not None, "SUM_TILE": tile}
    launch(_batch_norm_relu_fwd_kernel, grid, arguments, flags | constants, num_warps=chosen.warps)
    return y, moments


def batch_norm_relu_bwd(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    moments: Tensor,
    y: Tensor | None,
    eps: float,
    activation: int,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """dy [B, width, h, w] and the forward's inputs -> dx like x, sums [2, channels] and dresidual.

    dy, x, y: with even rows; y: the forward's result if there was a residual. sums: the gradients of bias and weight.
    """
    batch, width, height, wide = x.shape
    rows, channels = batch * height * wide, moments.shape[1]
    dy_stride, stride = row_stride(dy), row_stride(x)
    dx = _images(x, width)
    dresidual = None if y is None else _images(x, channels)
    chosen = tiles(channels)
    _, parts = _parts(rows, channels, chosen)
    partial = torch.empty(2, parts, channels, dtype=torch.float32, device=x.device)
    sums = torch.empty(2, channels, dtype=torch.float32, device=x.device)
    shared = {
        "x_ptr": x, "weight_ptr": moments if weight is None else weight, "bias_ptr": moments if bias is None else bias,
        "moments_ptr": moments, "parts_ptr": partial, "eps": eps, "N": rows, "C": channels, "x_stride": stride,
    }  # fmt: skip
    flags = {"WEIGHT": weight is not None, "BIAS": bias is not None}
    launch(
        _batch_norm_relu_sums_kernel,
        (triton.cdiv(channels, chosen.columns), parts),
        {
            "dy_ptr": dy, "y_ptr": x if y is None else y, "dresidual_ptr": dx if dresidual is None else dresidual,
            "dy_stride": dy_stride, "y_stride": stride if y is None else row_stride(y),
        } | shared,
        {
            "ACTIVATION": activation, "RESIDUAL": y is not None, "WHOLE": channels % chosen.columns == 0,
            "UNROLL": chosen.unroll, "BLOCK_R": chosen.sum_rows, "BLOCK_C": chosen.columns,
        } | flags,
        num_warps=chosen.sum_warps,
    )  # fmt: skip
    if dresidual is not None:
        # The ReLU is in it.
        dy, dy_stride, activation = dresidual, channels, NONE
    grid, constants = _second(rows, width, parts, chosen)
    if not constants["JOIN"]:
        launch(
            _batch_norm_relu_join_sums_kernel,
            (triton.cdiv(channels, FINAL_C),),
            {"parts_ptr": partial, "sums_ptr": sums, "parts": parts, "C": channels},
            {"BLOCK_P": _join_rows(parts), "BLOCK_C": FINAL_C},
        )
    arguments = {"dy_ptr": dy, "dy_stride": dy_stride, "sums_ptr": sums, "dx_ptr": dx, "WIDTH": width, "parts": parts}
    constants |= {"ACTIVATION": activation} | flags
    launch(_batch_norm_relu_bwd_kernel, grid, arguments | shared, constants, num_warps=chosen.warps)
    return dx, sums, dresidual


def _join_rows(parts: int) -> int:
    """Parts that are read at once where they are added once: all that there are, up to 64 numbers a thread."""
    return min(1024, triton.next_power_of_2(parts))
