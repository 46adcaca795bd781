"""The kernels of attention over short packed segments; `packed_attention` launches them.

B segments, H heads of D columns, D at most 128: BLOCK_D holds all columns of a head. A tile is BLOCK_Q queries by
BLOCK_K keys of one segment and head. Tokens may lie STEP elements apart, so that queries, keys, values and their
gradients can be parts of one tensor. Positions count from the start of a segment; `lse` is [T, H] float32, a query's
log2 of the sum of 2 ** (scale log2(e) q.k), 0 for a query without keys.

Scores are kept times log2(e): a GPU computes 2 ** x in one instruction.
"""

import triton
import triton.language as tl

from prior_fast.kernels._attention import products_of_rows, segment
from prior_fast.kernels._dot import dot
from prior_fast.kernels._philox import philox_word

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _load_tile(x_ptr, STEP, first, count, D: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """BLOCK rows from row `first` (int64), of which `count` exist; zeros for the others and past D."""
    rows, d = tl.arange(0, BLOCK), tl.arange(0, BLOCK_D)
    # The scalar part is int64, since a row times its step passes 2**31. Within a tile int32 is enough, which saves
    # registers.
    at = x_ptr + first * STEP + (rows[:, None] * STEP + d[None, :])
    mask = rows[:, None] < count
    if BLOCK_D != D:
        mask = mask & (d[None, :] < D)
    return tl.load(at, mask=mask, other=0.0)


@triton.jit
def _store_tile(x_ptr, STEP, first, count, x, D: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """Store the `count` rows of x that exist from row `first` (int64) on."""
    rows, d = tl.arange(0, BLOCK), tl.arange(0, BLOCK_D)
    at = x_ptr + first * STEP + (rows[:, None] * STEP + d[None, :])
    mask = rows[:, None] < count
    if BLOCK_D != D:
        mask = mask & (d[None, :] < D)
    tl.store(at, x, mask=mask)


@triton.jit
def _products(
    a, a_ptr, A_STEP, first_a, count_a, b, b_ptr, B_STEP, first_b, count_b, D: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """a b^T of two tiles: of what is loaded, or read again, CHUNK columns at a time, where operands take registers."""
    if CHUNK == BLOCK_D:
        return dot(a, tl.trans(b), tl.zeros([BLOCK_A, BLOCK_B], tl.float32))
    rows_a, rows_b = tl.arange(0, BLOCK_A), tl.arange(0, BLOCK_B)
    return products_of_rows(
        a_ptr + first_a * A_STEP, A_STEP, rows_a, rows_a < count_a, b_ptr + first_b * B_STEP, B_STEP, rows_b,
        rows_b < count_b, D, BLOCK_A, BLOCK_B, CHUNK,
    )  # fmt: skip


@triton.jit
def _kept(seed_ptr, rows, keys, MAX_K, threshold):
    """Which weights dropout keeps; rows are query * H + head (int64), keys positions within the segment."""
    word = philox_word(tl.load(seed_ptr), rows * MAX_K + keys)
    # The 23 bits that philox's contract makes a number of. As integers they compare alike in every dtype.
    return (word >> 9).to(tl.int32) >= threshold


@triton.jit(do_not_specialize=["MAX_K", "threshold"])
def _packed_attention_fwd_kernel(
    q_ptr, k_ptr, v_ptr, cu_q_ptr, cu_k_ptr, seed_ptr, out_ptr, lse_ptr, Q_STEP, K_STEP, V_STEP,
    scale, H, MAX_K, threshold, rescale,
    D: tl.constexpr, CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, WHOLE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """out_i = sum_j m_ij p_ij v_j with p = softmax over j of scale q_i.k_j and m from dropout; a tile of queries."""
    b = (tl.program_id(0) // H).to(tl.int64)
    h = tl.program_id(0) % H
    begin_q, end_q = segment(cu_q_ptr, b)
    begin_k, end_k = segment(cu_k_ptr, b)
    # The last tiles come first. Only long segments have them, so the programs with the most work start early.
    first_q = (tl.num_programs(1) - 1 - tl.program_id(1)) * BLOCK_Q
    length_q, length_k = (end_q - begin_q).to(tl.int32), (end_k - begin_k).to(tl.int32)
    if first_q >= length_q:
        return
    q_ptr, k_ptr, v_ptr = q_ptr + h * D, k_ptr + h * D, v_ptr + h * D
    row = begin_q + first_q
    queries = first_q + tl.arange(0, BLOCK_Q)
    rows = (row + tl.arange(0, BLOCK_Q)) * H + h
    q = _load_tile(q_ptr, Q_STEP, row, length_q - first_q, D, BLOCK_Q, BLOCK_D)
    scale = scale * LOG2_E
    if CAUSAL:
        # Keys past the tile's last query have no weight in it.
        length_k = tl.minimum(length_k, first_q + BLOCK_Q)

    out = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    # WHOLE: one tile has all keys of any segment. A constant number of iterations is unrolled, and nothing is rescaled.
    for first_k in range(0, BLOCK_K if WHOLE else length_k, BLOCK_K):
        keys = first_k + tl.arange(0, BLOCK_K)
        k = _load_tile(k_ptr, K_STEP, begin_k + first_k, length_k - first_k, D, BLOCK_K, BLOCK_D)
        v = _load_tile(v_ptr, V_STEP, begin_k + first_k, length_k - first_k, D, BLOCK_K, BLOCK_D)
        s = _products(
            q, q_ptr, Q_STEP, row, length_q - first_q, k, k_ptr, K_STEP, begin_k + first_k, length_k - first_k,
            D, BLOCK_Q, BLOCK_K, BLOCK_D, CHUNK,
        )  # fmt: skip
        mask = keys[None, :] < length_k
        if CAUSAL:
            mask = mask & (keys[None, :] <= queries[:, None])
        s = tl.where(mask, s * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(s, axis=1))
        if WHOLE:
            # -inf - -inf is NaN, so 0 is subtracted in a segment without keys. Otherwise every query has its first key.
            higher = tl.where(length_k > 0, higher, 0.0)
        p = tl.exp2(s - higher[:, None])
        if not WHOLE:
            # At the first tile top is -inf and shrink is 0, so the sums need no special start.
            shrink = tl.exp2(top - higher)
            total = total * shrink
            out = out * shrink[:, None]
        total += tl.sum(p, axis=1)
        top = higher
        if DROPOUT:
            # The sum is over all weights: dropout follows the softmax.
            p = tl.where(_kept(seed_ptr, rows[:, None], keys[None, :], MAX_K, threshold), p, 0.0)
        out = dot(p.to(v.dtype), v, out)
    # A query without keys gets 0 and not 0 / 0.
    some = length_k > 0
    total = tl.where(some, total, 1.0)
    tl.store(lse_ptr + rows, tl.where(some, top + tl.log2(total), 0.0), mask=queries < length_q)
    out = out * (rescale / total)[:, None]
    _store_tile(out_ptr + h * D, H * D, row, length_q - first_q, out, D, BLOCK_Q, BLOCK_D)


@triton.jit
def _weights_of_keys(
    k, v, q, dout, k_ptr, K_STEP, v_ptr, V_STEP, q_ptr, Q_STEP, dout_ptr, O_STEP, lse_ptr, seed_ptr, begin_k, first_k,
    length_k, begin_q, first_q, length_q, scale, h, H, MAX_K, threshold, rescale,
    D: tl.constexpr, CAUSAL: tl.constexpr, DROPOUT: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Of one tile, [keys, queries]: the weights before and after dropout, and the gradients of those before it."""
    # Keys are rows here: dv and dk multiply p^T and ds^T, which tensor cores then take from the registers in which the
    # products left them. Only ds for dq goes through shared memory.
    keys, queries = first_k + tl.arange(0, BLOCK_K), first_q + tl.arange(0, BLOCK_Q)
    row_q, row_k, count_q, count_k = begin_q + first_q, begin_k + first_k, length_q - first_q, length_k - first_k
    rows = (row_q + tl.arange(0, BLOCK_Q)) * H + h
    s = _products(
        k, k_ptr, K_STEP, row_k, count_k, q, q_ptr, Q_STEP, row_q, count_q, D, BLOCK_K, BLOCK_Q, BLOCK_D, CHUNK
    )
    dp = _products(
        v, v_ptr, V_STEP, row_k, count_k, dout, dout_ptr, O_STEP, row_q, count_q, D, BLOCK_K, BLOCK_Q, BLOCK_D, CHUNK
    )
    lse = tl.load(lse_ptr + rows, mask=queries < length_q, other=0.0)
    mask = (keys[:, None] < length_k) & (queries[None, :] < length_q)
    if CAUSAL:
        mask = mask & (keys[:, None] <= queries[None, :])
    # The mask of keys comes before the power: a score of 0 there may be far above lse, and its power infinite.
    p = tl.exp2(tl.where(mask, s * (scale * LOG2_E) - lse[None, :], float("-inf")))
    dropped = p
    if DROPOUT:
        kept = _kept(seed_ptr, rows[None, :], keys[:, None], MAX_K, threshold)
        dropped = tl.where(kept, p * rescale, 0.0)
        dp = tl.where(kept, dp * rescale, 0.0)
    return p, dropped, dp


@triton.jit(do_not_specialize=["MAX_K", "threshold"])
def _packed_attention_bwd_kernel(
    dout_ptr, q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, cu_q_ptr, cu_k_ptr, seed_ptr, dq_ptr, dk_ptr, dv_ptr, sum_ptr,
    Q_STEP, K_STEP, V_STEP, DQ_STEP, DK_STEP, DV_STEP, scale, H, MAX_K, threshold, rescale,
    D: tl.constexpr, CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, WHOLE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """dv_j = sum_i m_ij p_ij dout_i, dk_j = scale sum_i ds_ij q_i, dq_i = scale sum_j ds_ij k_j; a whole segment."""
    # A program has all keys and queries of its segment and head, so it makes each tile's weights once for all three
    # gradients (five products), and nobody else adds to them.
    b = (tl.program_id(0) // H).to(tl.int64)
    h = tl.program_id(0) % H
    begin_q, end_q = segment(cu_q_ptr, b)
    begin_k, end_k = segment(cu_k_ptr, b)
    length_q, length_k = (end_q - begin_q).to(tl.int32), (end_k - begin_k).to(tl.int32)
    O_STEP = H * D
    q_ptr, k_ptr, v_ptr, dout_ptr, out_ptr = (
        q_ptr + h * D,
        k_ptr + h * D,
        v_ptr + h * D,
        dout_ptr + h * D,
        out_ptr + h * D,
    )
    dq_ptr, dk_ptr, dv_ptr, sum_ptr = dq_ptr + h * D, dk_ptr + h * D, dv_ptr + h * D, sum_ptr + h * D
    several = length_k > BLOCK_K

    # At least one tile, also without keys: it stores the zeros of dq.
    for first_k in range(0, BLOCK_K if WHOLE else tl.maximum(length_k, 1), BLOCK_K):
        row_k, count_k = begin_k + first_k, length_k - first_k
        k = _load_tile(k_ptr, K_STEP, row_k, count_k, D, BLOCK_K, BLOCK_D)
        v = _load_tile(v_ptr, V_STEP, row_k, count_k, D, BLOCK_K, BLOCK_D)
        dk = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
        dv = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
        for first_q in range(0, length_q, BLOCK_Q):
            row_q, count_q = begin_q + first_q, length_q - first_q
            q = _load_tile(q_ptr, Q_STEP, row_q, count_q, D, BLOCK_Q, BLOCK_D)
            dout = _load_tile(dout_ptr, O_STEP, row_q, count_q, D, BLOCK_Q, BLOCK_D)
            p, dropped, dp = _weights_of_keys(
                k, v, q, dout, k_ptr, K_STEP, v_ptr, V_STEP, q_ptr, Q_STEP, dout_ptr, O_STEP, lse_ptr, seed_ptr,
                begin_k, first_k, length_k, begin_q, first_q, length_q, scale, h, H, MAX_K, threshold, rescale,
                D, CAUSAL, DROPOUT, BLOCK_Q, BLOCK_K, BLOCK_D, CHUNK,
            )  # fmt: skip
            dv = dot(dropped.to(dout.dtype), dout, dv)
            # delta_i = sum_j p_ij dp_ij = dout_i.out_i. Where the tile has all keys, it gives the sum, and `out` is not
            # read: masks of no row move no bytes, without a branch in the loop.
            delta = tl.sum(p * dp, axis=0)
            if not WHOLE:
                out = _load_tile(out_ptr, O_STEP, row_q, tl.where(several, count_q, 0), D, BLOCK_Q, BLOCK_D)
                delta = tl.where(several, tl.sum(out.to(tl.float32) * dout.to(tl.float32), axis=1), delta)
            ds = (p * (dp - delta[None, :])).to(q.dtype)
            # scale multiplies the float32 sums. Applied to ds, it would bring float16 nearer to underflow.
            dk = dot(ds, q, dk)
            dq = dot(tl.trans(ds), k, tl.zeros([BLOCK_Q, BLOCK_D], tl.float32))
            if not WHOLE:
                # The sum over several tiles of keys waits in memory, in float32. A segment of one tile never uses it.
                before = _load_tile(sum_ptr, O_STEP, row_q, tl.where(first_k > 0, count_q, 0), D, BLOCK_Q, BLOCK_D)
                dq += before
                last = first_k + BLOCK_K >= length_k
                _store_tile(sum_ptr, O_STEP, row_q, tl.where(last, 0, count_q), dq, D, BLOCK_Q, BLOCK_D)
                count_q = tl.where(last, count_q, 0)
            _store_tile(dq_ptr, DQ_STEP, row_q, count_q, dq * scale, D, BLOCK_Q, BLOCK_D)
        _store_tile(dk_ptr, DK_STEP, row_k, count_k, dk * scale, D, BLOCK_K, BLOCK_D)
        _store_tile(dv_ptr, DV_STEP, row_k, count_k, dv, D, BLOCK_K, BLOCK_D)
        if not WHOLE:
            # The next tile of keys may read a sum that another thread stored.
            tl.debug_barrier()


@triton.jit(do_not_specialize=["MAX_K", "threshold", "KEY_TILES"])
def _packed_attention_bwd_tiles_kernel(
    dout_ptr, q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, cu_q_ptr, cu_k_ptr, seed_ptr, dq_ptr, dk_ptr, dv_ptr,
    Q_STEP, K_STEP, V_STEP, DQ_STEP, DK_STEP, DV_STEP, scale, H, MAX_K, threshold, rescale, KEY_TILES,
    D: tl.constexpr, CAUSAL: tl.constexpr, DROPOUT: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The same gradients; a program has one tile of keys (dk and dv), or one tile of queries (dq)."""
    # Both kinds of program make the weights, seven products in place of five. In return a long segment is shared by
    # many programs, and no sum waits in memory.
    b = (tl.program_id(0) // H).to(tl.int64)
    h = tl.program_id(0) % H
    begin_q, end_q = segment(cu_q_ptr, b)
    begin_k, end_k = segment(cu_k_ptr, b)
    length_q, length_k = (end_q - begin_q).to(tl.int32), (end_k - begin_k).to(tl.int32)
    # The last tiles, which only long segments have, come first, those of keys and of queries in turn.
    number = tl.num_programs(1) - 1 - tl.program_id(1)
    of_keys = number < KEY_TILES
    first = tl.where(of_keys, number * BLOCK_K, (number - KEY_TILES) * BLOCK_Q)
    if first >= tl.where(of_keys, length_k, length_q):
        return
    O_STEP = H * D
    q_ptr, k_ptr, v_ptr, dout_ptr, out_ptr = (
        q_ptr + h * D,
        k_ptr + h * D,
        v_ptr + h * D,
        dout_ptr + h * D,
        out_ptr + h * D,
    )
    if of_keys:
        row_k, count_k = begin_k + first, length_k - first
        k = _load_tile(k_ptr, K_STEP, row_k, count_k, D, BLOCK_K, BLOCK_D)
        v = _load_tile(v_ptr, V_STEP, row_k, count_k, D, BLOCK_K, BLOCK_D)
        dk = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
        dv = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
        # Queries before the tile's first key give it no weight.
        for first_q in range(first // BLOCK_Q * BLOCK_Q if CAUSAL else 0, length_q, BLOCK_Q):
            row_q, count_q = begin_q + first_q, length_q - first_q
            q = _load_tile(q_ptr, Q_STEP, row_q, count_q, D, BLOCK_Q, BLOCK_D)
            dout = _load_tile(dout_ptr, O_STEP, row_q, count_q, D, BLOCK_Q, BLOCK_D)
            out = _load_tile(out_ptr, O_STEP, row_q, count_q, D, BLOCK_Q, BLOCK_D)
            p, dropped, dp = _weights_of_keys(
                k, v, q, dout, k_ptr, K_STEP, v_ptr, V_STEP, q_ptr, Q_STEP, dout_ptr, O_STEP, lse_ptr, seed_ptr,
                begin_k, first, length_k, begin_q, first_q, length_q, scale, h, H, MAX_K, threshold, rescale,
                D, CAUSAL, DROPOUT, BLOCK_Q, BLOCK_K, BLOCK_D, CHUNK,
            )  # fmt: skip
            delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), axis=1)
            dv = dot(dropped.to(dout.dtype), dout, dv)
            dk = dot((p * (dp - delta[None, :])).to(q.dtype), q, dk)
        _store_tile(dk_ptr + h * D, DK_STEP, row_k, count_k, dk * scale, D, BLOCK_K, BLOCK_D)
        _store_tile(dv_ptr + h * D, DV_STEP, row_k, count_k, dv, D, BLOCK_K, BLOCK_D)
    else:
        row_q, count_q = begin_q + first, length_q - first
        q = _load_tile(q_ptr, Q_STEP, row_q, count_q, D, BLOCK_Q, BLOCK_D)
        dout = _load_tile(dout_ptr, O_STEP, row_q, count_q, D, BLOCK_Q, BLOCK_D)
        out = _load_tile(out_ptr, O_STEP, row_q, count_q, D, BLOCK_Q, BLOCK_D)
        delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), axis=1)
        dq = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
        if CAUSAL:
            length_k = tl.minimum(length_k, first + BLOCK_Q)
        for first_k in range(0, length_k, BLOCK_K):
            k = _load_tile(k_ptr, K_STEP, begin_k + first_k, length_k - first_k, D, BLOCK_K, BLOCK_D)
            v = _load_tile(v_ptr, V_STEP, begin_k + first_k, length_k - first_k, D, BLOCK_K, BLOCK_D)
            p, _, dp = _weights_of_keys(
                k, v, q, dout, k_ptr, K_STEP, v_ptr, V_STEP, q_ptr, Q_STEP, dout_ptr, O_STEP, lse_ptr, seed_ptr,
                begin_k, first_k, length_k, begin_q, first, length_q, scale, h, H, MAX_K, threshold, rescale,
                D, CAUSAL, DROPOUT, BLOCK_Q, BLOCK_K, BLOCK_D, CHUNK,
            )  # fmt: skip
            dq = dot(tl.trans((p * (dp - delta[None, :])).to(k.dtype)), k, dq)
        _store_tile(dq_ptr + h * D, DQ_STEP, row_q, count_q, dq * scale, D, BLOCK_Q, BLOCK_D)
