import pytest
import torch

from prior_fast import ops
from prior_fast.ops.packed_attention import kept_weights


def naive(q, k, v, lengths_q, lengths_k, *, scale=None, dropout=0.0, seed=None, causal=False):
    """Plain attention, one segment at a time, in the dtype of the inputs; causal for segments that all have keys."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    longest = max(lengths_k, default=0)
    kept = kept_weights(seed, dropout, *q.shape[:2], longest, q.device) if dropout else None
    outputs, first = [], 0
    for qs, ks, vs in zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k), strict=True):
        logits = (qs.transpose(0, 1) @ ks.permute(1, 2, 0)) * scale
        if causal:
            logits = logits.masked_fill(torch.ones(logits.shape[1:]).triu(1).bool(), -torch.inf)
        weights = logits.softmax(dim=-1)
        if kept is not None:
            mask = kept[first : first + len(qs), :, : len(ks)].transpose(0, 1)
            weights = weights * mask.to(weights.dtype) / (1 - dropout)
        first += len(qs)
        outputs.append((weights @ vs.transpose(0, 1)).transpose(0, 1))
    return torch.cat(outputs)


def split(function):
    """packed_attention's arguments for packed_self_attention's."""
    return lambda qkv, *rest, **options: function(*qkv.unbind(1), *rest, **options)


# A single row, odd numbers, empty sides and segments.
SHAPES = [
    ((1,), (1,), 1, 1),
    ((3, 1, 5), (2, 7, 1), 1, 5),
    ((2, 0, 3), (0, 4, 5), 3, 4),
    ((0, 0), (0, 0), 2, 3),
    ((4, 3), (0, 0), 1, 2),
]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("lengths_q", "lengths_k", "heads", "d"), SHAPES)
def test_shapes(lengths_q, lengths_k, heads, d, dropout, randn, offsets, check_equal):
    inputs = randn(sum(lengths_q), heads, d), randn(sum(lengths_k), heads, d), randn(sum(lengths_k), heads, d)
    sizes = offsets(*lengths_q), offsets(*lengths_k), max(lengths_q), max(lengths_k)
    options = {"scale": 0.7, "dropout": dropout, "seed": 3}
    check_equal(
        lambda q, k, v: ops.packed_attention(q, k, v, *sizes, **options),
        lambda q, k, v: naive(q, k, v, lengths_q, lengths_k, **options),
        *inputs,
    )


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_no_segment(backend, offsets):
    empty = torch.zeros(0, 2, 3, requires_grad=True)
    output = ops.packed_attention(empty, empty, empty, offsets(), offsets(), 0, 0, backend=backend)
    output.sum().backward()
    assert output.shape == empty.grad.shape == (0, 2, 3)


@pytest.mark.parametrize("longest", [3, 300])
def test_triton_without_keys_or_queries(longest, offsets, gradients):
    x = torch.ones(3, 2, 16, dtype=torch.bfloat16, requires_grad=True)
    none = torch.zeros(0, 2, 16, dtype=torch.bfloat16, requires_grad=True)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # uninitialized memory then holds NaN
    try:
        for q, k, lengths in ((x, none, (3, 0)), (none, x, (0, 3))):
            sizes = *(offsets(n) for n in lengths), longest, longest
            output = ops.packed_attention(q, k, k, *sizes, backend="triton")
            for result in (output, *gradients(output.sum(), [q, k])):
                assert (result == 0).all()
    finally:
        torch.use_deterministic_algorithms(before)


# Lengths of queries and keys, heads, D, options: one tile and several, odd sizes, every BLOCK_D.
PRECISION = [
    ((17, 1, 5), (17, 3, 33), 1, 16, {}),
    ((16, 9), (49, 20), 3, 64, {"dropout": 0.1, "seed": 5}),
    ((65, 3), (129, 2), 1, 64, {"scale": 0.3}),
    ((65, 1), (65, 1), 1, 50, {"dropout": 0.3, "seed": 2**40 + 1, "causal": True}),
    ((33, 2), (70, 1), 1, 128, {"causal": True}),
]


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize(("lengths_q", "lengths_k", "heads", "d", "options"), PRECISION)
def test_precision(lengths_q, lengths_k, heads, d, options, backend, randn, offsets, check_precision):
    sizes = offsets(*lengths_q), offsets(*lengths_k), max(lengths_q), max(lengths_k)
    check_precision(
        lambda q, k, v: ops.packed_attention(q, k, v, *sizes, **options, backend=backend),
        lambda q, k, v: naive(q, k, v, lengths_q, lengths_k, **options),
        *(randn(sum(n), heads, d) for n in (lengths_q, lengths_k, lengths_k)),
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "longest"), [(200, 200), (129, 300)])
def test_long_segments(length, longest, causal, randn, offsets, gradients):
    """Several tiles of each side, in the kernel of whole segments and in the one that shares them."""
    qkv = randn(length + 9, 3, 1, 16).detach().bfloat16().requires_grad_()
    weights, cu = randn(length + 9, 1, 16).detach(), offsets(length, 9)
    truth = qkv.detach().double().requires_grad_()
    output = ops.packed_self_attention(qkv, cu, longest, causal=causal, backend="triton")
    wanted = split(naive)(truth, (length, 9), (length, 9), causal=causal)
    found = [output, *gradients((output * weights).sum(), [qkv])]
    for x, y in zip(found, [wanted, *gradients((wanted * weights).sum(), [truth])], strict=True):
        assert (x.double() - y).norm() <= 0.01 * y.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("longest", [70, 300])
def test_both_backends_and_passes_drop_the_same_weights(longest, dtype, randn, offsets, gradients):
    """With the identity as values, a row of the output is a row of weights: zero exactly where they are dropped."""
    q, k = (randn(n, 2, 64).detach().to(dtype) for n in (9, 60))
    v = torch.eye(60, 64)[:, None, :].repeat(1, 2, 1).to(dtype).requires_grad_()
    sizes = offsets(5, 4), offsets(40, 20), longest, longest
    outputs = [
        ops.packed_attention(q, k, v, *sizes, dropout=0.5, seed=11, backend=backend)
        for backend in ("triton", "reference")
    ]
    assert torch.equal(outputs[0] == 0, outputs[1] == 0)
    kept = kept_weights(11, 0.5, 9, 2, longest, q.device)
    assert torch.equal(outputs[0][:5, :, :40] != 0, kept[:5, :, :40])
    assert torch.equal(outputs[0][5:, :, 40:60] != 0, kept[5:, :, :20])
    # dv_j = sum_i m_ij p_ij dout_i: with one query's gradient, zero where that query's weight was dropped.
    dout = torch.zeros_like(outputs[0])
    dout[3] = 1
    (dv,) = gradients((outputs[0] * dout).sum(), [v])
    assert torch.equal(dv[:40, :, 0].T != 0, kept[3, :, :40])


def test_seeds(randn, offsets):
    q = randn(40, 2, 16).detach().float()
    sizes = offsets(40), offsets(40), 40, 40
    one, same, other = (
        ops.packed_attention(q, q, q, *sizes, dropout=0.2, seed=seed, backend="triton")
        for seed in (1, torch.ones(1, dtype=torch.int64), 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert abs(kept_weights(1, 0.2, 40, 2, 40, q.device).float().mean().item() - 0.8) < 0.03


@pytest.mark.parametrize("causal", [False, True])
def test_strided_inputs_and_int64_offsets(causal, randn, offsets, gradients):
    """Parts of one product are read in place; the gradient of qkv is one tensor with the values of three."""
    from prior_fast.kernels.common.launch import recording

    qkv = randn(30, 3, 2, 16).detach().float().requires_grad_()
    weights = randn(30, 2, 16).detach().float()
    cu = offsets(12, 0, 18)
    sizes = cu, cu, 20, 20
    options = {"causal": causal, "dropout": 0.1, "seed": 4, "backend": "triton"}
    results = []
    for output in (
        ops.packed_self_attention(qkv, cu, 20, **options),
        ops.packed_attention(*qkv.unbind(1), *sizes, **options),
        ops.packed_attention(*(x.contiguous() for x in qkv.unbind(1)), cu.long(), cu.long(), 20, 20, **options),
        ops.packed_attention(
            *(x.transpose(1, 2).contiguous().transpose(1, 2) for x in qkv.unbind(1)), *sizes, **options
        ),
    ):
        results.append([output, *gradients((output * weights).sum(), [qkv])])
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))
    with recording() as launches:
        ops.packed_self_attention(qkv, cu, 20, **options)
    assert launches[0].arguments["k_ptr"].data_ptr() == qkv[:, 1].data_ptr()
    assert launches[0].arguments["K_STEP"] == 96


@pytest.mark.parametrize("longest", [16, 200, 300])
def test_a_launch_for_each_pass(longest):
    from prior_fast.kernels.common.launch import recording
    from prior_fast.kernels.packed_attention import packed_attention_bwd, packed_attention_fwd

    qkv = torch.empty(4 * longest, 3, 12, 64, device="meta", dtype=torch.bfloat16, requires_grad=True)
    cu = torch.empty(5, device="meta", dtype=torch.int32)
    parts, options = qkv.detach().unbind(1), (longest, longest, 0.1, 0.0, False)
    with recording() as launches:
        out, lse = packed_attention_fwd(*parts, cu, cu, None, *options)
        packed_attention_bwd(out, *parts, out, lse, cu, cu, None, *parts, *options)
    assert len(launches) == 2


def test_same_bits_again(randn, offsets, gradients):
    qkv = randn(150, 3, 1, 16).detach().bfloat16().requires_grad_()
    runs = []
    for _ in range(2):
        output = ops.packed_self_attention(qkv, offsets(140, 10), 140, dropout=0.1, seed=3, backend="triton")
        runs.append([output, *gradients(output.square().sum(), [qkv])])
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))


@pytest.mark.parametrize("causal", [False, True])
def test_gradcheck(causal, randn, offsets):
    assert torch.autograd.gradcheck(
        lambda q, k, v: ops.packed_attention(
            q, k, v, offsets(2, 1, 0), offsets(1, 0, 3), 2, 3, dropout=0.2, seed=1, causal=causal
        ),
        (randn(3, 2, 2), randn(4, 2, 2), randn(4, 2, 2)),
    )


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_other_segments_do_not_leak(backend, randn, offsets, gradients):
    qkv = randn(6, 3, 1, 16).detach().float().requires_grad_()
    with torch.no_grad():
        qkv[4:] = torch.nan
    output = ops.packed_self_attention(qkv, offsets(4, 2), 4, backend=backend)
    assert output[:4].isfinite().all() and output[4:].isnan().all()
    assert gradients(output.sum(), [qkv])[0][:4].isfinite().all()


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_large_logits(backend, randn, offsets, gradients):
    """Weights of 0 and 1; scores outside the segment, which are 0, lie far above all others."""
    q, k = (randn(5, 1, 16).detach().float().abs().requires_grad_() for _ in range(2))
    sizes = offsets(5), offsets(5), 5, 5
    output = ops.packed_attention(q, -k, k, *sizes, scale=1000.0, backend=backend)
    wanted = naive(q.double(), -k.double(), k.double(), (5,), (5,), scale=1000.0)
    torch.testing.assert_close(output, wanted.float(), rtol=1e-3, atol=1e-3)
    assert all(g.isfinite().all() for g in gradients(output.sum(), [q, k]))


def test_passes_opcheck(randn, offsets):
    seed = torch.ones((), dtype=torch.int64)
    qkv = randn(5, 3, 2, 4).detach().float().requires_grad_()
    q, k, v = (x.detach().contiguous().requires_grad_() for x in qkv.unbind(1))
    cu, options = offsets(4, 1), (None, 0.1, True)
    torch.library.opcheck(torch.ops.prior_fast.packed_attention.default, (q, k, v, cu, cu, seed, 4, 4, *options))
    torch.library.opcheck(torch.ops.prior_fast.packed_self_attention.default, (qkv, cu, seed, 4, *options))


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_compiles_to_one_graph(backend, randn, offsets, check_compiled):
    def function(qkv, cu, longest, seed):
        if backend == "reference":
            return ops.packed_attention(*qkv.unbind(1), cu, cu, longest, longest, dropout=0.1, seed=seed, causal=True)
        qkv = qkv.float()
        once = ops.packed_self_attention(qkv, cu, longest, dropout=0.1, seed=seed, backend=backend)
        again = ops.packed_attention(once, *qkv.unbind(1)[1:], cu, cu, longest, longest, causal=True, backend=backend)
        return (once + again).double()

    # torch.compile takes equal sizes of the first case for one size, so no size here equals another or 3.
    seed = torch.ones((), dtype=torch.int64)
    segments = (3, 4, 2, 6), (9, 30, 1, 1, 1)
    cases = [(randn(sum(n), 3, 2, 8), offsets(*n), max(n), seed + i) for i, n in enumerate(segments)]
    check_compiled(function, *cases)


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_reads_nothing_back(backend, randn, offsets, no_host_read):
    qkv, cu = randn(5, 3, 2, 4).detach().float().requires_grad_(), offsets(2, 3)
    with no_host_read:
        ops.packed_self_attention(qkv, cu, 3, dropout=0.1, seed=3, backend=backend).sum().backward()


def test_wide_heads_are_for_the_reference(offsets):
    x, cu = torch.zeros(2, 1, 129), offsets(2)
    with pytest.raises(ValueError, match="triton: it takes heads of up to 128 columns, not 129"):
        ops.packed_attention(x, x, x, cu, cu, 2, 2, backend="triton")
    assert ops.packed_attention(x, x, x, cu, cu, 2, 2).shape == (2, 1, 129)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(5, 4)}, r"q has shape \[5, 4\], wanted \[Tq, H, D\], 3 dimensions"),
        ({"v": torch.zeros(5, 2, 3)}, r"v has shape \[5, 2, 3\], wanted \[Tk, H, D\] with D = 4 as in q"),
        ({"k": torch.zeros(5, 2, 4).half()}, r"k has dtype torch.float16, wanted torch.float32, the dtype of q"),
        ({"cu_seqlens_k": torch.tensor([0, 5])}, r"cu_seqlens_k has shape \[2\], wanted \[3\], for 2 segments"),
        ({"max_seqlen_k": 3}, r"max_seqlen_k is 3, but segment 0 of cu_seqlens_k has 4 rows"),
        ({"scale": "big"}, r"scale must be a number, got str"),
        ({"dropout": 1.0, "seed": 1}, r"dropout is 1.0, wanted 0 or more and less than 1"),
        ({"dropout": 0.1}, r"dropout is 0.1, but seed is None: pass a seed"),
        ({"seed": 0.5}, r"seed must be an int or an int64 tensor, got float"),
        ({"seed": 2**63}, r"seed is 9223372036854775808, wanted a number that int64 holds"),
        ({"seed": torch.zeros(2, dtype=torch.int64)}, r"seed has shape \[2\], wanted one element"),
        ({"seed": torch.zeros((), dtype=torch.int32)}, r"seed has dtype torch.int32, wanted one of int64"),
        ({"causal": 1}, r"causal must be a bool, got int"),
        ({"backend": "scipy"}, r"packed_attention: backend='scipy': this op has no such backend"),
    ],
)
def test_wrong_arguments(change, message, offsets):
    x = torch.zeros(5, 2, 4)
    arguments = {"q": x, "k": x, "v": x, "cu_seqlens_q": offsets(2, 3), "cu_seqlens_k": offsets(4, 1)}
    with pytest.raises(ValueError, match=message):
        ops.packed_attention(**(arguments | {"max_seqlen_q": 3, "max_seqlen_k": 4} | change))


def test_wrong_parts(offsets):
    with pytest.raises(ValueError, match=r"qkv has shape \[5, 2, 1, 4\], wanted \[T, 3, H, D\]"):
        ops.packed_self_attention(torch.zeros(5, 2, 1, 4), offsets(5), 5)
