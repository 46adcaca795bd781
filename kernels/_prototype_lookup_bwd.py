"""The backward pass of the Gumbel-softmax lookup.

N rows, K prototypes, D columns; tiles of BLOCK_N x BLOCK_K logits, BLOCK_N x BLOCK_D of rows or BLOCK_K x BLOCK_D of
the bank. The gradient of the weights, N K float32, is written once, by the first kernel, and read by the others.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels._bank import (
    SCHEDULE,
    gradient_dot,
    inverse_temperature,
    load_logits,
    load_row_tile,
    load_tile,
    over_tiles,
    tiles,
)
from prior_fast.kernels._row_parts import launch_by_parts, rows_of_part
from prior_fast.kernels.common.launch import launch


@triton.jit
def _output_gradient(doutput_ptr, sign_ptr, share, n, d, N, D, HAS_DOUTPUT: tl.constexpr, HAS_DL1: tl.constexpr):
    """The whole gradient of the mixture, float32: of output and, through the signs, of l1; `share` is dl1 / (N D)."""
    # Two kernels make it anew from doutput and a byte of sign; stored, it would be N D float32 to write and read twice.
    if HAS_DOUTPUT:
        gradient = load_tile(doutput_ptr, n, d, N, D).to(tl.float32)
        if HAS_DL1:
            gradient += share * load_tile(sign_ptr, n, d, N, D).to(tl.float32)
    else:
        gradient = share * load_tile(sign_ptr, n, d, N, D).to(tl.float32)
    return gradient


@triton.jit
def _weights(logits_ptr, stats_ptr, scale, n, k, N, K):
    """softmax(logits / tau) at n x k, as the forward pass had it; N is at least 1."""
    # Exponentials are made anew in each kernel from the kept logits. One division a row, then products.
    row = tl.minimum(n, N - 1)
    greatest, total = tl.load(stats_ptr + row), tl.load(stats_ptr + N + row)
    return tl.exp((load_logits(logits_ptr, n, k, N, K) - greatest[:, None]) * scale) * (1.0 / total)[:, None]


@triton.jit(do_not_specialize=["N"])
def _prototype_lookup_bwd_weights_kernel(
    doutput_ptr,
    dl1_ptr,
    sign_ptr,
    bank_ptr,
    dweights_ptr,
    N,
    K,
    D,
    count,
    HAS_DOUTPUT: tl.constexpr,
    HAS_DL1: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """dweights[n, k] = gradient of mixture n . bank[k]; a program makes one tile."""
    # As in the forward pass, the products have a kernel of their own, so that not every block of columns repeats them.
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.program_id(1).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    # count is N D as a float: as an integer it could pass 2**31, and Triton specializes on integers.
    share = tl.load(dl1_ptr).to(tl.float32) / count
    dweights = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    for first in range(0, D, BLOCK_D):
        d = first + tl.arange(0, BLOCK_D)
        gradient = _output_gradient(doutput_ptr, sign_ptr, share, n, d, N, D, HAS_DOUTPUT, HAS_DL1)
        bank = load_tile(bank_ptr, k, d, K, D)
        dweights = gradient_dot(gradient, tl.trans(bank), dweights, bank.dtype, PRECISION)
    mask = (n[:, None] < N) & (k[None, :] < K)
    tl.store(dweights_ptr + n[:, None] * K + k[None, :], dweights, mask=mask)


@triton.jit(do_not_specialize=["N"])
def _prototype_lookup_bwd_rows_kernel(
    dweights_ptr,
    logits_ptr,
    stats_ptr,
    dl1_ptr,
    sign_ptr,
    bank_ptr,
    tau_ptr,
    dx_ptr,
    means_ptr,
    N,
    K,
    D,
    count,
    HAS_DL1: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """dx = dlogits bank - sign dl1 / (N D), with dlogits = weights (dweights - means) / tau.

    means [N] is the mean of dweights under the weights; the programs of the first columns write it.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    scale = inverse_temperature(tau_ptr)
    # The gradient of a softmax subtracts a mean over all K, so it takes a pass before the product's. Each of the D / 64
    # programs of a row makes that pass for itself: K numbers a row from L2, and no product.
    means = tl.zeros([BLOCK_N], tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        weights = _weights(logits_ptr, stats_ptr, scale, n, k, N, K)
        means += tl.sum(weights * load_row_tile(dweights_ptr, n, k, N, K, 0.0), axis=1)

    dx = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        weights = _weights(logits_ptr, stats_ptr, scale, n, k, N, K)
        # The difference is taken in float32, before gradient_dot rounds: near-equal numbers cancel in it.
        dlogits = weights * (load_row_tile(dweights_ptr, n, k, N, K, 0.0) - means[:, None]) * scale
        bank = load_tile(bank_ptr, k.to(tl.int64), d, K, D)
        dx = gradient_dot(dlogits, bank, dx, bank.dtype, PRECISION)
    if HAS_DL1:
        dx -= tl.load(dl1_ptr).to(tl.float32) / count * load_tile(sign_ptr, n, d, N, D).to(tl.float32)
    tl.store(dx_ptr + n[:, None] * D + d[None, :], dx, mask=(n[:, None] < N) & (d[None, :] < D))
    # For the bank's kernel, which has only 64 of the K prototypes and cannot make the means.
    if tl.program_id(1) == 0:
        tl.store(means_ptr + n, means, mask=n < N)


@triton.jit(do_not_specialize=["N"])
def _prototype_lookup_bwd_bank_kernel(
    doutput_ptr,
    dl1_ptr,
    dweights_ptr,
    logits_ptr,
    stats_ptr,
    means_ptr,
    sign_ptr,
    x_ptr,
    tau_ptr,
    sum_ptr,
    N,
    K,
    D,
    count,
    HAS_DOUTPUT: tl.constexpr,
    HAS_DL1: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """dlogits^T x + weights^T gradient of the mixture; a program sums over a part of the rows (`launch_by_parts`)."""
    k = tl.program_id(0).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    scale = inverse_temperature(tau_ptr)
    share = tl.load(dl1_ptr).to(tl.float32) / count
    # One accumulator for both products: 64 x 64 sums are 16 registers a thread.
    dbank = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    begin, end = rows_of_part(N, BLOCK_N)
    for first in range(begin, end, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N).to(tl.int64)
        # Rows past the end have the last one's weights, but their x and gradients are zeros.
        weights = _weights(logits_ptr, stats_ptr, scale, n, k, N, K)
        means = tl.load(means_ptr + tl.minimum(n, N - 1))
        dlogits = weights * (load_row_tile(dweights_ptr, n, k, N, K, 0.0) - means[:, None]) * scale
        x = load_tile(x_ptr, n, d, N, D)
        dbank = gradient_dot(tl.trans(dlogits), x, dbank, x.dtype, PRECISION)
        gradient = _output_gradient(doutput_ptr, sign_ptr, share, n, d, N, D, HAS_DOUTPUT, HAS_DL1)
        dbank = gradient_dot(tl.trans(weights), gradient, dbank, x.dtype, PRECISION)
    mask = (k[:, None] < K) & (d[None, :] < D)
    part_ptr = sum_ptr + tl.program_id(2).to(tl.int64) * K * D
    tl.store(part_ptr + k[:, None] * D + d[None, :], dbank, mask=mask)


def prototype_lookup_bwd(
    doutput: Tensor | None,
    dl1: Tensor | None,
    x: Tensor,
    prototypes: Tensor,
    tau: Tensor,
    logits: Tensor,
    sign: Tensor,
    stats: Tensor,
    with_bank: bool,
    precision: str = "ieee",
) -> tuple[Tensor, Tensor]:
    """doutput [N, D] and dl1 [], at least one of them, and what the forward pass took and returned; all contiguous.

    Returns dx [N, D] and dprototypes [K, D], which is empty where it is not asked for.
    """
    (rows, columns), bank_rows = x.shape, prototypes.shape[0]
    sizes = {"N": rows, "K": bank_rows, "D": columns}
    numbers = sizes | {"count": float(max(rows * columns, 1))}
    # An absent tensor's place is taken by another, which is not read.
    incoming = {"dl1_ptr": tau if dl1 is None else dl1, "sign_ptr": sign}
    doutput_ptr = {"doutput_ptr": sign if doutput is None else doutput}
    has_dl1 = {"HAS_DL1": dl1 is not None}
    has_both = has_dl1 | {"HAS_DOUTPUT": doutput is not None}
    dweights, means = torch.empty_like(logits), logits.new_empty(rows)
    saved = {"logits_ptr": logits, "stats_ptr": stats, "tau_ptr": tau, "dweights_ptr": dweights, "means_ptr": means}

    constants = tiles(sizes, x.dtype, "D", precision)
    # With two stages the signs alone spill in float32 (Triton 3.6).
    schedule = SCHEDULE | ({"num_stages": 1} if doutput is None else {})
    launch(
        _prototype_lookup_bwd_weights_kernel,
        over_tiles(sizes, constants, "NK"),
        incoming | doutput_ptr | {"bank_ptr": prototypes, "dweights_ptr": dweights, **numbers},
        constants | has_both,
        **schedule,
    )
    constants = tiles(sizes, x.dtype, "K", precision)
    dx = x.new_empty(rows, columns)
    # With two stages the narrowest tiles spill in bfloat16 (Triton 3.8).
    schedule = SCHEDULE | ({"num_stages": 1} if columns <= 16 else {})
    launch(
        _prototype_lookup_bwd_rows_kernel,
        over_tiles(sizes, constants, "ND"),
        saved | incoming | {"bank_ptr": prototypes, "dx_ptr": dx, **numbers},
        constants | has_dl1,
        **schedule,
    )
    if not with_bank:
        return dx, x.new_empty(0)
    constants = tiles(sizes, x.dtype, "N", precision)
    dbank = x.new_empty(bank_rows, columns)
    launch_by_parts(
        _prototype_lookup_bwd_bank_kernel,
        over_tiles(sizes, constants, "KD"),
        rows,
        saved | incoming | doutput_ptr | {"x_ptr": x, **numbers},
        constants | has_both,
        dbank,
        **SCHEDULE,
    )
    return dx, dbank
