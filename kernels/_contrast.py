"""What the kernels of the contrastive losses share: a tile of rows of one side against the rows of the other.

There are two sides: on side 0 a row x is one of a and looks at the rows y of b, on side 1 it is one of b and looks at
those of a. t_ij = x_i.y_j sign(scale), and the logits are s t_ij with s = |scale|: the greatest logit is where t is
greatest, also at a scale of 0. Row i of x belongs to row i of y.

stats [5, 2, R] float32 holds, for both sides' R rows: the greatest t; the softmax's weight there, which is one over
sum_j exp(s (t_ij - greatest)); its weight off the diagonal; the row's loss; its slope, d loss / d scale. Differences
are taken before they are multiplied, the two parts of the logsumexp are not added, and the diagonal of the gradient, 1
less the weight off it, is not made by subtraction: large logits and small losses keep the precision of the products.

D columns; a program takes BLOCK_I rows of x, and passes over rows of y, BLOCK_J at a time. Products are made BLOCK_D
columns at a time, gradients for BLOCK_E columns.
"""

import triton
import triton.language as tl

from prior_fast.kernels._dot import dot


@triton.jit
def dot_wide(g, y, total):
    """total + g y, where g is float32 and y may be narrow: then g is multiplied as the sum of two narrow numbers.

    One would keep 8 bits of bfloat16, but a softmax's small weights add up against its great ones.
    """
    if y.dtype == tl.float32:
        return dot(g, y, total)
    # What rounding takes from g is multiplied too. Two products of bfloat16 keep 16 bits of g and run on tensor cores.
    high = g.to(y.dtype)
    total = dot(high, y, total)
    return dot((g - high.to(tl.float32)).to(y.dtype), y, total)


@triton.jit
def load_rows(x_ptr, row, of_row, d, D):
    """Columns d of the rows `row` (int64) of a matrix of D columns; zero past them and where `of_row` is false."""
    return tl.load(x_ptr + row[:, None] * D + d[None, :], mask=of_row[:, None] & (d[None, :] < D), other=0.0)


@triton.jit
def load_scale(scale_ptr):
    """|scale| and its sign, 1 for 0, in float32."""
    scale = tl.load(scale_ptr).to(tl.float32)
    return tl.abs(scale), tl.where(scale < 0.0, -1.0, 1.0)


@triton.jit
def log1p(x):
    """ln(1 + x) for x >= 0, without the error of rounding 1 + x (Goldberg 1991, theorem 4)."""
    # log(1 + x) is wrong by the rounding of 1 + x; dividing by the rounded u - 1 takes the same error out again.
    u = 1.0 + x
    return tl.where(u == 1.0, x, tl.log(u) * (x / tl.where(u == 1.0, 1.0, u - 1.0)))


@triton.jit
def products(
    x_ptr, i, of_i, y_ptr, j, of_j, sign, D, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_D: tl.constexpr
):
    """t_ij; zero where `of_i` or `of_j` is false."""
    # Only the sums of products stay in registers: D sets the length of the loop and not the memory.
    t = tl.zeros([BLOCK_I, BLOCK_J], tl.float32)
    for first in range(0, D, BLOCK_D):
        d = first + tl.arange(0, BLOCK_D)
        x = load_rows(x_ptr, i, of_i, d, D)
        y = load_rows(y_ptr, j, of_j, d, D)
        t = dot(x, tl.trans(y), t)
    # Only the sign is applied here. |scale| multiplies differences of t, which keep digits that large logits lose.
    return t * sign


@triton.jit
def see(t, i, j, of_j, s, top, rest, moment, own):
    """What rows i know after the rows j too: the greatest t, sum exp(s (t - top)) and sum (t - top) exp(s (t - top))
    off the diagonal, and t_ii."""
    # The diagonal stays out of `rest`. The weight off it may be 1e-9, and would be lost in a sum with 1.
    same = i[:, None] == j[None, :]
    own += tl.sum(tl.where(same, t, 0.0), axis=1)
    # Rows past the end have t = 0, which may be the greatest, so they are masked here as in the sums.
    higher = tl.maximum(top, tl.max(tl.where(of_j[None, :], t, float("-inf")), axis=1))
    # The sums move from the old greatest t to the new one. At first there is none, and -inf times a sum of 0 or a scale
    # of 0 would be NaN.
    step = tl.where(top == float("-inf"), 0.0, top - higher)
    shrink = tl.exp(s * step)
    moment = (moment + rest * step) * shrink
    away = t - higher[:, None]
    weight = tl.where(of_j[None, :] & ~same, tl.exp(s * away), 0.0)
    rest = rest * shrink + tl.sum(weight, axis=1)
    return higher, rest, moment + tl.sum(weight * away, axis=1), own


@triton.jit
def store_stats(stats_ptr, row, of_row, R, s, sign, share, top, rest, moment, own):
    """The stats of the rows `row`, numbered through both sides' R rows; losses and slopes are multiplied by `share`."""
    # The pair's own weight joins here, counted from the greatest t like all others.
    behind = top - own
    total = rest + tl.exp(-s * behind)
    # Where the pair itself is the greatest, the loss is log(1 + rest), and log1p keeps a small rest.
    log = tl.where(behind == 0.0, log1p(rest), tl.log(total))
    tl.store(stats_ptr + row, top, mask=of_row)
    tl.store(stats_ptr + 2 * R + row, 1.0 / total, mask=of_row)
    tl.store(stats_ptr + 4 * R + row, rest / total, mask=of_row)
    tl.store(stats_ptr + 6 * R + row, (s * behind + log) * share, mask=of_row)
    # sum_j p_ij t_ij - t_ii, where both are counted from the greatest t.
    tl.store(stats_ptr + 8 * R + row, sign * (moment + behind * rest) / total * share, mask=of_row)


@triton.jit
def gradient(t, i, of_i, j, of_j, s, top_i, peak_i, off_i, top_j, peak_j):
    """p_ij + q_ij - 2 [i = j], with p the softmaxes of the rows of this side and q those of the other's.

    top and peak are where the softmaxes are greatest and their weights there, off_i both weights off the diagonal.
    """
    # q comes from the other side's stats: one tile of t gives both softmaxes, and no row is summed again.
    p = tl.exp(s * (t - top_i[:, None])) * peak_i[:, None]
    q = tl.exp(s * (t - top_j[None, :])) * peak_j[None, :]
    # p_ii + q_ii - 2 would lose small weights off the diagonal to rounding. Their negative sum is the same number.
    g = tl.where(i[:, None] == j[None, :], -off_i[:, None], p + q)
    return tl.where(of_i[:, None] & of_j[None, :], g, 0.0)
