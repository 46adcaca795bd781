"""The "cpp" backend of `sigmoid_attention` and `attention_weights`: csrc/packed_attention_cpu.cpp."""

import contextlib
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast import extension, ops
from prior_fast.ops.common.backend import BackendError

pytestmark = pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="not built")

# Of the vectors; 32 stands for 16 with products of pairs of bfloat16 numbers. A processor without the longer ones takes
# shorter ones.
LANES = (32, 16, 8, 4)
ACTIVATIONS = ("sigmoid", "softmax")
DTYPES = (torch.float32, torch.bfloat16)
LOW = pytest.mark.parametrize("check_precision", DTYPES, indirect=True)


def naive(q, k, v, lengths_q, lengths_k, scale=None, bias=0.0, activation="sigmoid"):
    """Plain attention, one segment at a time, in the dtype of the inputs."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    outputs = []
    for qs, ks, vs in zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k), strict=True):
        logits = (qs.transpose(0, 1) @ ks.permute(1, 2, 0)) * scale + bias
        weights = logits.sigmoid() if activation == "sigmoid" else logits.softmax(dim=-1)
        outputs.append((weights @ vs.transpose(0, 1)).transpose(0, 1))
    return torch.cat(outputs)


@contextlib.contextmanager
def poison():
    """A block in which uninitialized memory of tensors holds NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Lengths of queries and keys, heads, D, Dv, scale: one tile; several tiles, the last ones shorter, and widths that
# vectors do not fill; empty sides; so many weights that the backward pass takes the queries in parts; logits so large
# that weights are 0 and 1.
PRECISION = [
    ((8,), (9,), 1, 768, 768, None),
    ((9, 17, 1), (4, 1, 12), 2, 32, 33, None),
    ((1, 0, 2), (0, 3, 33), 1, 70, 20, None),
    ((3, 5, 2), (70, 0, 2), 3, 20, 5, None),
    ((600, 2), (460, 7), 1, 4, 18, None),
    ((26, 1), (40, 2), 1, 5, 49, 30.0),
]


@LOW
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("lengths_q", "lengths_k", "heads", "d", "dv", "scale"), PRECISION)
def test_precision(lengths_q, lengths_k, heads, d, dv, scale, activation, randn, offsets, check_precision):
    sizes = offsets(*lengths_q), offsets(*lengths_k), max(lengths_q), max(lengths_k)
    with poison():
        check_precision(
            lambda *x: ops.sigmoid_attention(*x, *sizes, scale=scale, activation=activation, backend="cpp"),
            lambda *x: naive(*x, lengths_q, lengths_k, scale=scale, activation=activation),
            randn(sum(lengths_q), heads, d),
            randn(sum(lengths_k), heads, d),
            randn(sum(lengths_k), heads, dv),
        )


@LOW
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("lengths_q", "lengths_k", "heads", "d", "dv", "scale"), PRECISION)
def test_precision_of_weights(lengths_q, lengths_k, heads, d, dv, scale, activation, randn, offsets, check_precision):
    sizes = offsets(*lengths_q), offsets(*lengths_k), max(lengths_q) + 2, max(lengths_k) + 1

    def plain(q, k):
        weights = q.new_zeros(len(lengths_q), heads, *sizes[2:])
        for b, (qs, ks) in enumerate(zip(q.split(lengths_q), k.split(lengths_k), strict=True)):
            logits = (qs.transpose(0, 1) @ ks.permute(1, 2, 0)) * (d**-0.5 if scale is None else scale) - 0.3
            block = logits.sigmoid() if activation == "sigmoid" else logits.softmax(dim=-1)
            weights[b, :, : len(qs), : len(ks)] = block
        return weights

    with poison():
        check_precision(
            lambda *x: ops.attention_weights(*x, *sizes, scale=scale, bias=-0.3, activation=activation, backend="cpp"),
            plain,
            randn(sum(lengths_q), heads, d),
            randn(sum(lengths_k), heads, d),
        )


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=3),
    heads=st.integers(1, 2),
    d=st.sampled_from([1, 3, 4, 15, 16, 31, 32, 40, 64, 101]),
    dv=st.sampled_from([1, 5, 8, 16, 33, 48, 79, 112]),
    lanes=st.sampled_from(LANES),
    dtype=st.sampled_from(DTYPES),
    softmax=st.booleans(),
    int64=st.booleans(),
)
def test_every_length_of_vectors(lengths, heads, d, dv, lanes, dtype, softmax, int64):
    generator = torch.Generator().manual_seed(d + dv)
    sides = list(zip(*lengths, strict=True))
    rows_q, rows_k = map(sum, sides)
    shapes = (rows_q, heads, d), (rows_k, heads, d), (rows_k, heads, dv), (rows_q, heads, dv)
    q, k, v, dout = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    cu = [torch.tensor([0, *side], dtype=torch.int64 if int64 else torch.int32).cumsum(0) for side in sides]
    cu = [x if int64 else x.int() for x in cu]
    longest = [max(side) for side in sides]
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    wanted = ops.sigmoid_attention(*exact, *cu, *longest, bias=0.2, activation="softmax" if softmax else "sigmoid")
    wanted = [wanted, *torch.autograd.grad(wanted, exact, dout.double())]
    options = *cu, None, 0.2, softmax, lanes
    with poison():
        found = [
            torch.ops.prior_fast.sigmoid_attention_cpp(q, k, v, *options),
            *torch.ops.prior_fast.sigmoid_attention_cpp_backward(dout, q, k, v, *options),
        ]
    tolerance = 4e-6 if dtype == torch.float32 else 4e-3
    for actual, expected in zip(found, wanted, strict=True):
        assert actual.dtype == dtype and actual.is_contiguous()
        torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=4e-6)


@pytest.mark.parametrize("lanes", LANES)
def test_a_long_sum_is_one_of_short_sums(lanes):
    """The sum of 20,000 positive numbers errs by 2e-6 to 4e-6 of itself if they are added one after another."""
    generator = torch.Generator().manual_seed(0)
    v = torch.rand(20_000, 1, 48, generator=generator)
    k, q = torch.zeros(len(v), 1, 4), torch.zeros(3, 1, 4)
    cu = torch.tensor([0, len(q)], dtype=torch.int32), torch.tensor([0, len(v)], dtype=torch.int32)
    options = *cu, None, 0.0, False, lanes
    found = torch.ops.prior_fast.sigmoid_attention_cpp(q, k, v, *options)
    wanted = v.double().sum(0) / 2
    assert ((found.double() - wanted) / wanted).abs().max() < 1e-6
    # Of the gradient of v, which sums over queries, and over parts of them.
    dout = torch.rand(len(v), 1, 48, generator=generator)
    dv = torch.ops.prior_fast.sigmoid_attention_cpp_backward(dout, k, q, v[:3], cu[1], cu[0], *options[2:])[2]
    wanted = dout.double().sum(0) / 2
    assert ((dv.double() - wanted) / wanted).abs().max() < 1e-6


def sigmoids(x, lanes):
    """The sigmoids of the numbers x, as queries and one key of one column."""
    one, cu = torch.ones(1, 1, 1), [torch.tensor([0, n], dtype=torch.int32) for n in (len(x), 1)]
    return torch.ops.prior_fast.attention_weights_cpp(x[:, None, None], one, *cu, len(x), 1, 1.0, 0.0, False, lanes)


@pytest.mark.parametrize("lanes", LANES)
def test_sigmoid_of_every_size(lanes):
    x = torch.cat([torch.linspace(-87, 87, 20_001), torch.linspace(-1, 1, 20_001), torch.logspace(-40, 1.9, 999)])
    wanted = 1 / (1 + (-x.double()).exp())
    found = sigmoids(x, lanes).flatten()
    assert ((found.double() - wanted).abs() / wanted).max() <= 4 * 2.0**-24
    below = torch.linspace(-110, -87, 1001)  # results are below the normal numbers
    assert (sigmoids(below, lanes).flatten().double() - 1 / (1 + (-below.double()).exp())).abs().max() <= 2.0**-148


@pytest.mark.parametrize("lanes", LANES)
def test_sigmoid_of_numbers_that_are_none(lanes):
    x = torch.tensor([-math.inf, -3e38, -1e4, -0.0, 0.0, 1e4, 3e38, math.inf, math.nan])
    found = sigmoids(x, lanes).flatten()
    assert found[:-1].tolist() == [0, 0, 0, 0.5, 0.5, 1, 1, 1] and found[-1].isnan()


@pytest.mark.parametrize("lanes", LANES)
def test_exponential(lanes):
    """A softmax over 0 and x, for x < 0, has the weights 1 / (1 + exp(x)) and exp(x) / (1 + exp(x))."""
    x = torch.linspace(-100, 0, 30_001)
    q, k = x[:, None, None], torch.tensor([0.0, 1.0])[:, None, None]
    cu = [torch.tensor([0, n], dtype=torch.int32) for n in (len(x), 2)]
    found = torch.ops.prior_fast.attention_weights_cpp(q, k, *cu, len(x), 2, 1.0, 0.0, True, lanes)[0, 0]
    wanted = torch.stack([torch.zeros(len(x)), x], dim=1).double().softmax(dim=1)
    assert ((found.double() - wanted).abs() <= 4 * 2.0**-24 * wanted + 2.0**-148).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_give_the_same_bits(dtype, activation, offsets):
    lengths_q, lengths_k = (7, 0, 13, 40, 2, 9), (49, 3, 49, 11, 0, 30)
    inputs = [torch.randn(sum(n), 2, 200).to(dtype).requires_grad_() for n in (lengths_q, lengths_k, lengths_k)]
    sizes = offsets(*lengths_q), offsets(*lengths_k), max(lengths_q), max(lengths_k)
    runs = []
    for count in (1, 2, 3):
        with threads(count):
            out = ops.sigmoid_attention(*inputs, *sizes, activation=activation, backend="cpp")
            weights = ops.attention_weights(*inputs[:2], *sizes, activation=activation, backend="cpp")
            loss = out.float().square().sum() + weights.float().square().sum()
            runs.append([out, weights, *torch.autograd.grad(loss, inputs)])
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_parts_of_one_product(activation, offsets):
    """Rows of a joined projection give the bits of contiguous rows. So do tensors whose heads are not adjacent."""
    lengths = 3, 5, 0, 11
    joined = torch.randn(sum(lengths), 3, 2, 48, requires_grad=True)
    sizes = offsets(*lengths), offsets(*lengths), max(lengths), max(lengths)
    results = []
    for prepare in (lambda x: x, lambda x: x.contiguous(), lambda x: x.transpose(0, 1).contiguous().transpose(0, 1)):
        out = ops.sigmoid_attention(*map(prepare, joined.unbind(1)), *sizes, activation=activation, backend="cpp")
        results.append([out, *torch.autograd.grad(out.sum(), [joined])])  # the gradient of a sum is one expanded number
    assert not joined[:, 0].is_contiguous()
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def test_without_keys_or_queries(offsets):
    x, none = torch.randn(3, 2, 4, requires_grad=True), torch.zeros(0, 2, 4, requires_grad=True)
    with poison():
        for activation in ACTIVATIONS:
            for q, k, lengths in ((x, none, (3, 0)), (none, x, (0, 3))):
                sizes = *(offsets(n) for n in lengths), *lengths
                output = ops.sigmoid_attention(q, k, k, *sizes, activation=activation, backend="cpp")
                for result in (output, *torch.autograd.grad(output.sum(), [q, k])):
                    assert (result == 0).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_other_segments_do_not_leak(activation, offsets, gradients):
    q, k, v = (torch.randn(rows, 1, 33, requires_grad=True) for rows in (4, 5, 5))
    with torch.no_grad():
        k[3:], v[3:] = torch.nan, torch.inf
    output = ops.sigmoid_attention(q, k, v, offsets(2, 2), offsets(3, 2), 2, 3, activation=activation, backend="cpp")
    assert output[:2].isfinite().all() and output[2:].isnan().all()
    for gradient, own in zip(gradients(output.sum(), [q, k, v]), (2, 3, 3), strict=True):
        assert gradient[:own].isfinite().all()


def test_who_serves(offsets):
    """float32 and bfloat16 on a CPU, unless the reference is named; never other dtypes."""
    sizes = offsets(4), offsets(4), 4, 4
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(4, 1, 40).to(dtype)
        for call in (partial(ops.sigmoid_attention, x, x, x, *sizes), partial(ops.attention_weights, x, x, *sizes)):
            assert torch.equal(call(), call(backend="cpp"))
            with pytest.raises(BackendError) as caught:
                call(backend="none")
            assert list(caught.value.available) == ["cpp", "reference", "triton"]
    for dtype in (torch.float64, torch.float16):
        x = torch.randn(4, 1, 4).to(dtype)
        assert ops.sigmoid_attention(x, x, x, *sizes).dtype == ops.attention_weights(x, x, *sizes).dtype == dtype
        with pytest.raises(ValueError, match=f"cpp: it takes float32 and bfloat16, not {str(dtype)[6:]}"):
            ops.sigmoid_attention(x, x, x, *sizes, backend="cpp")


def test_bad_offsets_read_no_foreign_memory(monkeypatch):
    monkeypatch.setenv("PRIOR_FAST_CHECK", "0")
    x, good = torch.randn(4, 1, 4), torch.tensor([0, 2, 4])
    for bad in ([0, 2, 5], [-1, 2, 4], [0, 5, 4], [0, 2, 3]):
        for cu in ((good, torch.tensor(bad)), (torch.tensor(bad), good)):
            with pytest.raises(RuntimeError, match=r"cu_seqlens_[qk] must rise from 0 to 4, the number of rows"):
                ops.sigmoid_attention(x, x, x, *cu, 9, 9, backend="cpp")
    with pytest.raises(RuntimeError, match="a segment has 2 queries and 2 keys, but max_seqlen_q is 1"):
        ops.attention_weights(x, x, good, good, 1, 2, backend="cpp")


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_passes_opcheck(activation, offsets):
    q, k, v, dout = (torch.randn(rows, 2, 3) for rows in (4, 5, 5, 4))
    offset, options = (offsets(4, 0), offsets(3, 2)), (None, 0.1, activation == "softmax")
    check, found = torch.library.opcheck, torch.ops.prior_fast
    check(found.sigmoid_attention_cpp.default, (q, k, v, *offset, *options))
    check(found.sigmoid_attention_cpp_backward.default, (dout, q, k, v, *offset, *options))
    check(found.attention_weights_cpp.default, (q, k, *offset, 4, 3, *options))
    check(found.attention_weights_cpp_backward.default, (torch.randn(2, 2, 4, 3), q, k, *offset, *options))


def test_compiles_to_one_graph(randn, offsets, check_compiled):
    def function(q, k, v, *sizes):
        q, k, v = q.float(), k.float(), v.float()
        once = ops.sigmoid_attention(q, k, v, *sizes, backend="cpp")
        again = ops.sigmoid_attention(once, k, v, *sizes, scale=0.3, activation="softmax")
        weights = ops.attention_weights(q, k, *sizes, activation="softmax")
        return (once + again).double() + weights.double().sum()

    cases = []
    for lengths_q, lengths_k in (((3, 4), (2, 6)), ((7, 2, 4), (3, 3, 6))):
        tensors = (randn(sum(n), 2, 4) for n in (lengths_q, lengths_k, lengths_k))
        cases.append((*tensors, offsets(*lengths_q), offsets(*lengths_k), max(lengths_q), max(lengths_k)))
    check_compiled(function, *cases)


def test_autocast_does_not_lower_precision(offsets):
    x = torch.randn(6, 1, 16, requires_grad=True)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = ops.sigmoid_attention(x, x, x, offsets(4, 2), offsets(4, 2), 4, 4, backend="cpp")
            results.append([out, *torch.autograd.grad(out.sum(), [x])])
    assert all(map(torch.equal, *results))
