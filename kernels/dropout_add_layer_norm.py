"""Layer norm of a dropped-out row plus its residual, forward and backward, and the gradients of the parameters.

N rows, C columns. A program goes over rows, ROWS at a time, and holds whole rows in registers. A row has PIECES pieces
of BLOCK columns, a power of two as Triton demands: 768 = 3 * 256, where one piece of 1,024 would spend a quarter of
the lanes, and of the random numbers, on nothing.

Dropout's mask is made where it is used, by the contract of `prior_fast.ops.dropout_add_layer_norm`.
"""

# Triton kernels can't unpack a tuple into another one.
# ruff: noqa: RUF005

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels._column_sums import column_sums
from prior_fast.kernels.common.launch import launch


class Tiles(NamedTuple):
    """Rows that a program holds at once, its warps, and the greatest number of programs, which share the rows."""

    rows: int
    warps: int
    programs: int


@triton.jit
def _factor(n, start, C, seed, noise_stream, threshold, scale, BLOCK: tl.constexpr):
    """What dropout multiplies with: [ROWS, BLOCK] of 0 or scale, for rows n and columns start, start + 1, ..."""
    group = n[:, None] * tl.cdiv(C, 4) + (start // 4 + tl.arange(0, BLOCK // 4))[None, :]
    low, high = group.to(tl.uint32), (group >> 32).to(tl.uint32)
    zero = tl.zeros_like(low)
    # Triton's own Philox returns all four words; a call for each element would be four times the work, which is then
    # longer than the reading and writing.
    word_0, word_1, word_2, word_3 = tl.philox(seed, low, high, zero + noise_stream.to(tl.uint32), zero)
    # The last two axes are (0 or 1) and (0 or 1), the words in their order.
    words = tl.join(tl.join(word_0, word_2), tl.join(word_1, word_3)).reshape(n.shape[0], BLOCK)
    # 24 bits: a signed integer holds them, whatever type Triton gives the threshold.
    return tl.where((words >> 8).to(tl.int32) >= threshold, scale, 0.0)


@triton.jit
def _vectors(pointer, C, PIECES: tl.constexpr, BLOCK: tl.constexpr):
    """The pieces [1, BLOCK] of a parameter, float32; zeros for no parameter."""
    found = ()
    for piece in tl.static_range(PIECES):
        c = piece * BLOCK + tl.arange(0, BLOCK)
        if pointer is not None:
            found = found + (tl.load(pointer + c, mask=c < C, other=0.0).to(tl.float32)[None, :],)  # type: ignore[assignment]
        else:
            found = found + (tl.zeros([1, BLOCK], tl.float32),)  # type: ignore[assignment]
    return found


@triton.jit
def _tiles(pointer, other_pointer, n, N, C, PIECES: tl.constexpr, BLOCK: tl.constexpr):
    """The pieces [ROWS, BLOCK] of rows n, float32; if both pointers are given, the sum of both tensors."""
    found = ()
    for piece in tl.static_range(PIECES):
        c = piece * BLOCK + tl.arange(0, BLOCK)
        mask = (n[:, None] < N) & (c[None, :] < C)
        place = n[:, None] * C + c[None, :]
        if pointer is None:
            x = tl.load(other_pointer + place, mask=mask, other=0.0).to(tl.float32)
        else:
            x = tl.load(pointer + place, mask=mask, other=0.0).to(tl.float32)
            if other_pointer is not None:
                x += tl.load(other_pointer + place, mask=mask, other=0.0).to(tl.float32)
        found = found + (x,)  # type: ignore[assignment]
    return found


@triton.jit
def _store(pointer, x, n, N, C, piece: tl.constexpr, BLOCK: tl.constexpr):
    """Write piece [ROWS, BLOCK] of rows n."""
    c = piece * BLOCK + tl.arange(0, BLOCK)
    tl.store(pointer + n[:, None] * C + c[None, :], x, mask=(n[:, None] < N) & (c[None, :] < C))


# Triton has an option called `stream`, so no parameter may have this name.
@triton.jit(do_not_specialize=["N", "noise_stream", "threshold"])
def _dropout_add_layer_norm_fwd_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    linear_bias_ptr,
    seed_ptr,
    y_ptr,
    low_ptr,
    stats_ptr,
    N,
    C,
    eps,
    noise_stream,
    threshold,
    scale,
    ROWS: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK: tl.constexpr,
    DROPOUT: tl.constexpr,
):
    """y = layer_norm(dropout(x + linear_bias) + residual), low = y in the dtype of x; stats: means, 1 / deviations."""
    weight, bias = _vectors(weight_ptr, C, PIECES, BLOCK), _vectors(bias_ptr, C, PIECES, BLOCK)
    linear_bias = _vectors(linear_bias_ptr, C, PIECES, BLOCK)
    seed = 0
    if DROPOUT:
        seed = tl.load(seed_ptr)
    for first in range(tl.program_id(0) * ROWS, N, tl.num_programs(0) * ROWS):
        n = (first + tl.arange(0, ROWS)).to(tl.int64)
        # All loads come before the random numbers, which need no data: they are made while the loads are under way.
        x = _tiles(x_ptr, None, n, N, C, PIECES, BLOCK)
        residual = _tiles(residual_ptr, None, n, N, C, PIECES, BLOCK)
        added = ()
        # Pieces are added up first: a sum along the row is exchanged between warps.
        total = tl.zeros([ROWS, BLOCK], tl.float32)
        for piece in tl.static_range(PIECES):
            dropped = x[piece] + linear_bias[piece]
            if DROPOUT:
                dropped *= _factor(n, piece * BLOCK, C, seed, noise_stream, threshold, scale, BLOCK)
            added = added + (dropped + residual[piece],)  # type: ignore[assignment]
            total += added[piece]
        mean = tl.sum(total, axis=1)[:, None] / C
        centered = ()
        rest = tl.zeros([ROWS, BLOCK], tl.float32)
        squares = tl.zeros([ROWS, BLOCK], tl.float32)
        for piece in tl.static_range(PIECES):
            inside = piece * BLOCK + tl.arange(0, BLOCK) < C
            centered = centered + (tl.where(inside[None, :], added[piece] - mean, 0.0),)  # type: ignore[assignment]
            rest += centered[piece]
            squares += centered[piece] * centered[piece]
        # The mean's rounding error, found again in the centered values. Without it a row of equal values, whose
        # deviation is sqrt(eps), would show this error a million times larger.
        rest = tl.sum(rest, axis=1)[:, None] / C
        rstd = tl.rsqrt(tl.maximum(tl.sum(squares, axis=1)[:, None] / C - rest * rest, 0.0) + eps)
        tl.store(stats_ptr + n[:, None], mean + rest, mask=n[:, None] < N)
        tl.store(stats_ptr + N + n[:, None], rstd, mask=n[:, None] < N)
        for piece in tl.static_range(PIECES):
            y = (centered[piece] - rest) * rstd * weight[piece] + bias[piece]
            _store(y_ptr, y, n, N, C, piece, BLOCK)
            if low_ptr is not None:
                _store(low_ptr, y, n, N, C, piece, BLOCK)


@triton.jit(do_not_specialize=["N", "noise_stream", "threshold"])
def _dropout_add_layer_norm_bwd_kernel(
    dy_ptr,
    dlow_ptr,
    x_ptr,
    residual_ptr,
    weight_ptr,
    linear_bias_ptr,
    seed_ptr,
    stats_ptr,
    dx_ptr,
    dresidual_ptr,
    parts_ptr,
    N,
    C,
    noise_stream,
    threshold,
    scale,
    ROWS: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK: tl.constexpr,
    DROPOUT: tl.constexpr,
):
    """dx, dresidual, and parts[p]: the gradients of weight, bias and linear_bias from the rows of program p."""
    weight = _vectors(weight_ptr, C, PIECES, BLOCK)
    linear_bias = _vectors(linear_bias_ptr, C, PIECES, BLOCK)
    # Tiles, not rows: a sum over the tile's rows in every step would be exchanged between warps.
    dweight = ()
    for _ in tl.static_range(PIECES):
        dweight = dweight + (tl.zeros([ROWS, BLOCK], tl.float32),)  # type: ignore[assignment]
    dbias = dweight
    dlinear_bias = dweight
    seed = 0
    if DROPOUT:
        seed = tl.load(seed_ptr)
    for first in range(tl.program_id(0) * ROWS, N, tl.num_programs(0) * ROWS):
        n = (first + tl.arange(0, ROWS)).to(tl.int64)
        # Rows past the last have no deviation here, and so no gradient in the sums below.
        mean = tl.load(stats_ptr + n, mask=n < N, other=0.0)[:, None]
        rstd = tl.load(stats_ptr + N + n, mask=n < N, other=0.0)[:, None]
        x = _tiles(x_ptr, None, n, N, C, PIECES, BLOCK)
        residual = _tiles(residual_ptr, None, n, N, C, PIECES, BLOCK)
        dy = _tiles(dy_ptr, dlow_ptr, n, N, C, PIECES, BLOCK)
        factors, normal, next_dweight, next_dbias = (), (), (), ()
        along_one = tl.zeros([ROWS, BLOCK], tl.float32)
        along_normal = tl.zeros([ROWS, BLOCK], tl.float32)
        for piece in tl.static_range(PIECES):
            dropped = x[piece] + linear_bias[piece]
            if DROPOUT:
                factors = factors + (_factor(n, piece * BLOCK, C, seed, noise_stream, threshold, scale, BLOCK),)  # type: ignore[assignment]
                dropped *= factors[piece]
            normal = normal + ((dropped + residual[piece] - mean) * rstd,)  # type: ignore[assignment]
            # dy and weight are 0 past the last column, so that nothing there enters a sum.
            along_one += dy[piece] * weight[piece]
            along_normal += dy[piece] * weight[piece] * normal[piece]
            next_dweight = next_dweight + (dweight[piece] + dy[piece] * normal[piece],)  # type: ignore[assignment]
            next_dbias = next_dbias + (dbias[piece] + dy[piece],)  # type: ignore[assignment]
        dweight, dbias = next_dweight, next_dbias
        along_one = tl.sum(along_one, axis=1)[:, None] / C
        along_normal = tl.sum(along_normal, axis=1)[:, None] / C
        next_dlinear_bias = ()
        for piece in tl.static_range(PIECES):
            dx = (dy[piece] * weight[piece] - along_one - normal[piece] * along_normal) * rstd
            _store(dresidual_ptr, dx, n, N, C, piece, BLOCK)
            if DROPOUT:
                dx *= factors[piece]
            _store(dx_ptr, dx, n, N, C, piece, BLOCK)
            # Before its rounding to the dtype of x: the sum of many rows keeps float32's precision.
            next_dlinear_bias = next_dlinear_bias + (dlinear_bias[piece] + dx,)  # type: ignore[assignment]
        dlinear_bias = next_dlinear_bias
    SUMS: tl.constexpr = 2 if linear_bias_ptr is None else 3
    parts_ptr += tl.program_id(0).to(tl.int64) * SUMS * C
    for piece in tl.static_range(PIECES):
        c = piece * BLOCK + tl.arange(0, BLOCK)
        tl.store(parts_ptr + c, tl.sum(dweight[piece], axis=0), mask=c < C)
        tl.store(parts_ptr + C + c, tl.sum(dbias[piece], axis=0), mask=c < C)
        if linear_bias_ptr is not None:
            tl.store(parts_ptr + 2 * C + c, tl.sum(dlinear_bias[piece], axis=0), mask=c < C)


def pieces(columns: int) -> tuple[int, int]:
    """PIECES and BLOCK for rows of this width: three pieces where they leave out less than one does."""
    one = max(16, triton.next_power_of_2(columns))
    return (3, one // 4) if 64 <= columns <= one // 4 * 3 else (1, one)


def forward_tiles(rows: int, columns: int) -> Tiles:
    """The tiles of the forward pass for x [rows, columns]: one row in each program."""
    return Tiles(1, _warps(columns), 1 << 30)


def backward_tiles(rows: int, columns: int) -> Tiles:
    """The tiles of the backward pass for x [rows, columns].

    Each program leaves three rows of float32 and takes four rows or more, so that what it leaves is at most a sixth of
    what it reads and writes. 528 programs are four for each of 132 multiprocessors.
    """
    return Tiles(1, _warps(columns), max(1, min(528, triton.cdiv(rows, 4))))


def _warps(columns: int) -> int:
    """So many that a thread has four neighbours of each piece, the words of one call of Philox.

    They are 16 bytes of float32, the most that a thread stores at once. With more of them, Triton would exchange
    numbers between threads before it stores them.
    """
    return min(16, max(1, pieces(columns)[1] // 128))


def dropout_add_layer_norm_fwd(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    linear_bias: Tensor | None,
    seed: Tensor | None,
    stream: int,
    threshold: int,
    scale: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """y like residual, y in the dtype of x (empty if that is the same), and statistics [2, N] float32.

    x, residual [N, C], parameters [C] float32, all contiguous; seed [] int64 or None, which means no dropout; a word
    whose upper 24 bits are below threshold drops its element, scale multiplies the others.
    """
    y, stats = torch.empty_like(residual), torch.empty(2, x.shape[0], dtype=torch.float32, device=x.device)
    low = torch.empty_like(x) if x.dtype != residual.dtype else x.new_empty(0)
    arguments: dict[str, Any] = {"x_ptr": x, "residual_ptr": residual, "weight_ptr": weight, "bias_ptr": bias}
    arguments |= {"linear_bias_ptr": linear_bias, "seed_ptr": seed}
    arguments |= {"y_ptr": y, "low_ptr": low if x.dtype != residual.dtype else None, "stats_ptr": stats}
    numbers = {"eps": eps, "noise_stream": stream, "threshold": threshold, "scale": scale}
    tiles = forward_tiles(*x.shape)
    _launch(_dropout_add_layer_norm_fwd_kernel, x, tiles, _programs(x, tiles), arguments | numbers)
    return y, low, stats


def dropout_add_layer_norm_bwd(
    dy: Tensor | None,
    dlow: Tensor | None,
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    linear_bias: Tensor | None,
    seed: Tensor | None,
    stats: Tensor,
    stream: int,
    threshold: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dresidual, and float32 [2 or 3, C]: the gradients of weight, bias and, if it is given, linear_bias.

    dy, dlow: gradients [N, C] of both outputs; one may be None. The others as in the forward pass.
    """
    tiles = backward_tiles(*x.shape)
    # One program at least: it leaves zeros where there is no row.
    programs = max(1, _programs(x, tiles))
    sums = 2 if linear_bias is None else 3
    parts = torch.empty(programs, sums, x.shape[1], dtype=torch.float32, device=x.device)
    dx, dresidual = torch.empty_like(x), torch.empty_like(residual)
    arguments: dict[str, Any] = {
        "dy_ptr": dy,
        "dlow_ptr": dlow,
        "x_ptr": x,
        "residual_ptr": residual,
        "weight_ptr": weight,
    }
    arguments |= {"linear_bias_ptr": linear_bias, "seed_ptr": seed, "stats_ptr": stats}
    arguments |= {"dx_ptr": dx, "dresidual_ptr": dresidual, "parts_ptr": parts}
    numbers = {"noise_stream": stream, "threshold": threshold, "scale": scale}
    _launch(_dropout_add_layer_norm_bwd_kernel, x, tiles, programs, arguments | numbers)
    return dx, dresidual, column_sums(parts)


def _programs(x: Tensor, tiles: Tiles) -> int:
    return min(tiles.programs, triton.cdiv(x.shape[0], tiles.rows))


def _launch(kernel: object, x: Tensor, tiles: Tiles, programs: int, arguments: dict[str, Any]) -> None:
    rows, columns = x.shape
    count, block = pieces(columns)
    constants = {"ROWS": tiles.rows, "PIECES": count, "BLOCK": block, "DROPOUT": arguments["seed_ptr"] is not None}
    launch(kernel, (programs,), arguments | {"N": rows, "C": columns}, constants, num_warps=tiles.warps)
