import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast import extension, ops

CPP = pytest.param("cpp", marks=pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="not built"))
GOLDEN = pytest.mark.parametrize(
    "golden_case",
    [
        ("reference", torch.float64),
        ("reference", torch.float32),
        ("triton", torch.float32),
        pytest.param(("cpp", torch.float32), marks=CPP.marks),
    ],
    ids=lambda case: f"{case[0]}-{str(case[1]).removeprefix('torch.')}",
    indirect=True,
)


def naive(q, k, v, lengths_q, lengths_k, *, scale=None, bias=0.0, activation="sigmoid"):
    """Plain attention, one segment at a time, in the dtype of the inputs."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    outputs = []
    for qs, ks, vs in zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k), strict=True):
        logits = (qs.transpose(0, 1) @ ks.permute(1, 2, 0)) * scale + bias
        weights = logits.sigmoid() if activation == "sigmoid" else logits.softmax(dim=-1)
        outputs.append((weights @ vs.transpose(0, 1)).transpose(0, 1))
    return torch.cat(outputs)


def linear(x, p, name):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


@contextlib.contextmanager
def poison():
    """A block in which uninitialized memory holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@GOLDEN
def test_golden_local_cross_attention(golden_case, gradients, offsets):
    file, backend = golden_case("local_cross_attention")
    image, text, p = file.leaf("image"), file.leaf("text"), file.parameters("p.")
    cu_image, cu_text = offsets(49), offsets(7)
    results = {}
    for side, x, other, cu_x, cu_other, of_x, of_other in (
        ("image", image, text, cu_image, cu_text, "1", "2"),
        ("text", text, image, cu_text, cu_image, "2", "1"),
    ):
        q, k, v = (
            linear(source, p, name).unsqueeze(1)
            for source, name in ((x, f"query{of_x}"), (other, f"key{of_other}"), (other, f"value{of_other}"))
        )
        sizes = (cu_x, cu_other, x.shape[0], other.shape[0])
        over = "text" if side == "image" else "image"
        results[f"ctx_for_{side}"] = ops.sigmoid_attention(q, k, v, *sizes, backend=backend).squeeze(1)
        results[f"probs_{side}_over_{over}"] = ops.attention_weights(q, k, *sizes, backend=backend)[0, 0]
    for name, value in results.items():
        file.check(value, name)
    total = sum((value * file[f"w.{name}"].to(value.dtype)).sum() for name, value in results.items())
    file.check_scalar(total, "weighted_sum")
    found = gradients(total, [image, text, *p.values()])
    for name, gradient in zip(["image", "text", *(f"p.{name}" for name in p)], found, strict=True):
        file.check(gradient, f"g.{name}")


@GOLDEN
def test_golden_sentence_attention_pool(golden_case, gradients, offsets):
    """Multi-head softmax attention from each report's mean to the mean and the report's sentences."""
    file, backend = golden_case("sentence_attention_pool")
    x, p = file.leaf("input"), file.parameters("p.")
    lengths = file["lengths"].tolist()
    means = ops.segment_mean(x, offsets(*lengths))
    keys = torch.cat([piece for m, rows in zip(means, x.split(lengths), strict=True) for piece in (m[None], rows)])
    q, k, v = (
        linear(rows, p, f"{name}_proj").view(rows.shape[0], 8, 8)
        for name, rows in (("q", means), ("k", keys), ("v", keys))
    )
    sizes = offsets(1, 1, 1), offsets(*(n + 1 for n in lengths)), 1, max(lengths) + 1
    pooled = ops.sigmoid_attention(q, k, v, *sizes, activation="softmax", backend=backend)
    output = linear(pooled.flatten(1), p, "c_proj")
    file.check(output, "output")
    found = gradients((output * file["w"].to(output.dtype)).sum(), [x, *p.values()])
    for name, gradient in zip(["input", *(f"p.{name}" for name in p)], found, strict=True):
        file.check(gradient, f"g.{name}")


# PRIOR's own shapes are in the golden file; here a single row, odd numbers, empty sides and segments, several heads.
SHAPES = [
    ((1,), (1,), 1, 1, 1),
    ((3, 1, 5), (2, 7, 1), 1, 5, 3),
    ((2, 0, 3), (0, 4, 5), 3, 4, 7),
    ((0, 0), (0, 0), 2, 3, 3),
    ((4, 3), (0, 0), 1, 2, 2),
    ((0,), (5,), 1, 2, 2),
]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("lengths_q", "lengths_k", "heads", "d", "dv"), SHAPES)
def test_shapes(lengths_q, lengths_k, heads, d, dv, activation, randn, offsets, check_equal):
    inputs = randn(sum(lengths_q), heads, d), randn(sum(lengths_k), heads, d), randn(sum(lengths_k), heads, dv)
    sizes = offsets(*lengths_q), offsets(*lengths_k), max(lengths_q), max(lengths_k)
    options = {"scale": 0.7, "bias": -0.3, "activation": activation}
    check_equal(
        lambda q, k, v: ops.sigmoid_attention(q, k, v, *sizes, **options),
        lambda q, k, v: naive(q, k, v, lengths_q, lengths_k, **options),
        *inputs,
    )


@pytest.mark.parametrize("backend", ["reference", "triton", CPP])
def test_no_segment(backend, offsets):
    empty = torch.zeros(0, 2, 3, requires_grad=True)
    output = ops.sigmoid_attention(empty, empty, empty, offsets(), offsets(), 0, 0, backend=backend)
    output.sum().backward()
    assert output.shape == empty.grad.shape == (0, 2, 3)


def test_triton_without_keys_or_queries(randn, offsets, gradients):
    x, none = randn(3, 2, 4).detach().float().requires_grad_(), torch.zeros(0, 2, 4, requires_grad=True)
    with poison():
        for activation in ("sigmoid", "softmax"):
            for q, k, lengths in ((x, none, (3, 0)), (none, x, (0, 3))):
                sizes = *(offsets(n) for n in lengths), *lengths
                output = ops.sigmoid_attention(q, k, k, *sizes, activation=activation, backend="triton")
                for result in (output, *gradients(output.sum(), [q, k])):
                    assert (result == 0).all()


def test_non_contiguous_and_longer_maximum(randn, offsets, check_equal):
    q, k, v = randn(2, 4, 5), randn(2, 4, 6), randn(2, 3, 6)
    sizes = offsets(2, 3), offsets(5, 1), 9, 8
    check_equal(
        lambda *inputs: ops.sigmoid_attention(*(x.permute(2, 0, 1) for x in inputs), *sizes),
        lambda *inputs: naive(*(x.permute(2, 0, 1) for x in inputs), (2, 3), (5, 1)),
        *(q, k, v),
    )


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("lengths", [(3, 5, 0, 1), (70, 1)])  # a tile each, and several
def test_parts_of_one_product(lengths, activation, randn, offsets, gradients):
    """Queries, keys and values may be slices of one row: the results equal those of contiguous tensors bit for bit."""
    from prior_fast.kernels.common.launch import recording

    rows = sum(lengths)
    sides = [randn(rows, 3, 2, 16).detach().float().requires_grad_() for _ in range(2)]
    sizes = offsets(*lengths), offsets(*lengths), max(lengths), max(lengths)
    dout = randn(rows, 2, 16).detach().float()
    results = []
    for prepare in (lambda x: x, lambda x: x.contiguous()):
        (query, _, _), (_, key, value) = ([prepare(x) for x in side.unbind(1)] for side in sides)
        out = ops.sigmoid_attention(query, key, value, *sizes, activation=activation, backend="triton")
        results.append([out, *gradients((out * dout).sum(), sides)])
    assert query.is_contiguous() and not sides[0][:, 0].is_contiguous()
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
    with recording() as launches:
        ops.sigmoid_attention(*(sides[1][:, i] for i in range(3)), *sizes, activation=activation, backend="triton")
    (call,) = launches
    if max(lengths) <= 64:
        assert call.arguments["k_ptr"].data_ptr() == sides[1][:, 1].data_ptr()
        assert call.arguments["K_STEP"] == 96


# Lengths of queries and keys, heads, D, Dv, scale: rows within a tile, and widths that fill no block; a row; sides
# without a row; keys that span tiles; queries that span tiles, with logits so large that weights are 0 and 1.
PRECISION = [
    ((9, 17, 9), (4, 1, 12), 2, 32, 32, None),
    ((1, 0, 2), (0, 3, 33), 1, 70, 20, None),
    ((3, 5, 2), (70, 0, 2), 1, 20, 5, None),
    ((66, 1), (40, 2), 1, 5, 20, 30.0),
]


@pytest.mark.filterwarnings("ignore:overflow encountered")  # exp(-x) of a sigmoid that is 0
@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("lengths_q", "lengths_k", "heads", "d", "dv", "scale"), PRECISION)
def test_precision(lengths_q, lengths_k, heads, d, dv, scale, activation, backend, randn, offsets, check_precision):
    sizes = offsets(*lengths_q), offsets(*lengths_k), max(lengths_q), max(lengths_k)
    options = {"scale": scale, "activation": activation}
    with poison():
        check_precision(
            lambda q, k, v: ops.sigmoid_attention(q, k, v, *sizes, **options, backend=backend),
            lambda q, k, v: naive(q, k, v, lengths_q, lengths_k, **options),
            randn(sum(lengths_q), heads, d),
            randn(sum(lengths_k), heads, d),
            randn(sum(lengths_k), heads, dv),
        )


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=3),
    heads=st.integers(1, 2),
    d=st.integers(1, 20),
    dv=st.integers(1, 20),
    longer=st.sampled_from([0, 0, 60]),
    activation=st.sampled_from(["sigmoid", "softmax"]),
    int64=st.booleans(),
)
def test_triton_on_any_shape(lengths, heads, d, dv, longer, activation, int64):
    """`longer` is what the maxima exceed the segments by: 60 takes the kernels for several tiles."""
    generator = torch.Generator().manual_seed(d)
    rows_q, rows_k = (sum(side) for side in zip(*lengths, strict=True))
    shapes = (d, rows_q, heads), (d, rows_k, heads), (dv, rows_k, heads)
    inputs = [torch.randn(shape, generator=generator).permute(1, 2, 0).requires_grad_() for shape in shapes]
    offsets = [torch.tensor([0, *side]).cumsum(0) for side in zip(*lengths, strict=True)]
    sizes = (
        *(x if int64 else x.int() for x in offsets),
        *(max(side) + longer for side in zip(*lengths, strict=True)),
    )
    with poison():
        found, wanted = (
            ops.sigmoid_attention(*inputs, *sizes, bias=0.2, activation=activation, backend=backend)
            for backend in ("triton", "reference")
        )
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-6)
        weights = torch.randn(wanted.shape, generator=generator)
        gradients = [torch.autograd.grad((y * weights).sum(), inputs) for y in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("longest", [4, 70])
def test_triton_gives_the_same_bits_again(longest, activation, randn, offsets, gradients):
    inputs = [randn(7, 1, 4).detach().float().requires_grad_() for _ in range(3)]
    sizes = offsets(3, 4), offsets(4, 3), longest, longest
    runs = []
    for _ in range(2):
        output = ops.sigmoid_attention(*inputs, *sizes, activation=activation, backend="triton")
        runs.append([output, *gradients(output.square().sum(), inputs)])
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(
    ("longest_q", "longest_k", "forward", "backward"), [(49, 40, 1, 1), (1, 17, 1, 1), (16, 65, 1, 2), (100, 49, 1, 2)]
)
def test_launches(longest_q, longest_k, forward, backward, activation):
    from prior_fast.kernels.common.launch import recording
    from prior_fast.kernels.sigmoid_attention import sigmoid_attention_bwd, sigmoid_attention_fwd

    q, k = (torch.empty(8 * n, 1, 768, device="meta", dtype=torch.bfloat16) for n in (longest_q, longest_k))
    cu = torch.empty(9, device="meta", dtype=torch.int32)
    options = cu, cu, longest_q, longest_k, 0.1, 0.0, activation
    with recording() as launches:
        out, stats = sigmoid_attention_fwd(q, k, k, *options)
        assert len(launches) == forward
        sigmoid_attention_bwd(out, q, k, k, out, stats, *options)
    assert len(launches) == forward + backward


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_gradcheck(activation, randn, offsets):
    assert torch.autograd.gradcheck(
        lambda q, k, v: ops.sigmoid_attention(
            q, k, v, offsets(2, 1, 0), offsets(1, 0, 3), 2, 3, bias=0.2, activation=activation
        ),
        (randn(3, 2, 2), randn(4, 2, 2), randn(4, 2, 3)),
    )


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("backend", "longest"), [("reference", 3), ("triton", 3), ("triton", 70)])
def test_other_segments_do_not_leak(backend, longest, activation, randn, offsets, gradients):
    q, k, v = (randn(rows, 1, 3).detach().float().requires_grad_() for rows in (4, 5, 5))
    with torch.no_grad():
        k[3:], v[3:] = torch.nan, torch.nan
    sizes = offsets(2, 2), offsets(3, 2), longest, longest
    output = ops.sigmoid_attention(q, k, v, *sizes, activation=activation, backend=backend)
    assert output[:2].isfinite().all() and output[2:].isnan().all()
    for gradient, own in zip(gradients(output.sum(), [q, k, v]), (2, 3, 3), strict=True):
        assert gradient[:own].isfinite().all()


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_passes_opcheck(activation, randn, offsets):
    q, k, v = (randn(rows, 2, 3).detach().float().requires_grad_() for rows in (4, 5, 5))
    sizes = offsets(4, 0), offsets(3, 2), 4, 3
    torch.library.opcheck(torch.ops.prior_fast.sigmoid_attention.default, (q, k, v, *sizes, None, 0.1, activation))
    if (
        activation == "softmax"
    ):  # the backward of a sigmoid is the same op with less to know; the forward's check runs it
        out, stats = torch.ops.prior_fast.sigmoid_attention(q, k, v, *sizes, None, 0.1, activation)
        inputs = [x.detach() for x in (out, q, k, v, out, stats)]
        torch.library.opcheck(
            torch.ops.prior_fast.sigmoid_attention_backward.default, (*inputs, *sizes, 0.5, 0.1, activation)
        )


def compile_cases(randn, offsets):
    for lengths_q, lengths_k in (((3, 4), (2, 6)), ((7, 2, 4), (3, 3, 6))):
        yield (
            *(randn(sum(n), 2, 4) for n in (lengths_q, lengths_k, lengths_k)),
            *(offsets(*n) for n in (lengths_q, lengths_k)),
            *(max(n) for n in (lengths_q, lengths_k)),
        )


def test_compiles_to_one_graph(randn, offsets, check_compiled):
    check_compiled(ops.sigmoid_attention, *compile_cases(randn, offsets))


def test_triton_compiles_to_one_graph(randn, offsets, check_compiled):
    def function(q, k, v, *sizes):
        q, k, v = q.float(), k.float(), v.float()
        once = ops.sigmoid_attention(q, k, v, *sizes, backend="triton")
        again = ops.sigmoid_attention(once, k, v, *sizes, scale=0.3, activation="softmax", backend="triton")
        return (once + again).double()

    check_compiled(function, *compile_cases(randn, offsets))


@pytest.mark.parametrize("backend", ["reference", "triton", CPP])
def test_reads_nothing_back(backend, randn, offsets, no_host_read):
    q, k, v = (x.detach().float().requires_grad_() for x in (randn(5, 2, 4), randn(6, 2, 4), randn(6, 2, 3)))
    sizes = offsets(2, 3), offsets(0, 6)
    with no_host_read:
        for activation in ("sigmoid", "softmax"):
            output = ops.sigmoid_attention(q, k, v, *sizes, 3, 6, activation=activation, backend=backend)
            output.sum().backward()


def arguments(offsets):
    x = torch.zeros(5, 2, 4)
    return {
        "q": x,
        "k": x,
        "v": x,
        "cu_seqlens_q": offsets(2, 3),
        "cu_seqlens_k": offsets(4, 1),
        "max_seqlen_q": 3,
        "max_seqlen_k": 4,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(5, 4)}, r"q has shape \[5, 4\], wanted \[Tq, H, D\], 3 dimensions"),
        ({"k": torch.zeros(5, 1, 4)}, r"k has shape \[5, 1, 4\], wanted \[Tk, H, D\] with H = 2 as in q"),
        ({"v": torch.zeros(4, 2, 4)}, r"v has shape \[4, 2, 4\], wanted \[Tk, H, Dv\] with Tk = 5 as in k"),
        ({"v": torch.zeros(5, 2, 4).half()}, r"v has dtype torch.float16, wanted torch.float32, the dtype of k"),
        ({"k": torch.zeros(5, 2, 4, device="meta")}, r"k is on meta, wanted cpu, the device of q"),
        ({"q": torch.zeros(5, 2, 4, dtype=torch.int32)}, r"q has dtype torch.int32, wanted one of float32"),
        ({"q": [1.0]}, r"q must be a tensor \[Tq, H, D\], got list"),
        ({"cu_seqlens_q": torch.tensor([0.0, 5.0])}, r"cu_seqlens_q has dtype torch.float32, wanted one of int32"),
        ({"cu_seqlens_q": torch.tensor([[0, 5]])}, r"cu_seqlens_q has shape \[1, 2\], wanted \[B\+1\]"),
        ({"cu_seqlens_k": torch.tensor([0, 5])}, r"cu_seqlens_k has shape \[2\], wanted \[3\], for 2 segments"),
        ({"cu_seqlens_k": torch.tensor([1, 4, 5])}, r"cu_seqlens_k starts at 1, wanted 0"),
        ({"cu_seqlens_k": torch.tensor([0, 6, 5])}, r"cu_seqlens_k decreases from 6 to 5 at segment 1"),
        ({"cu_seqlens_k": torch.tensor([0, 3, 4])}, r"cu_seqlens_k ends at 4, wanted 5, the rows of k"),
        ({"max_seqlen_k": 3}, r"max_seqlen_k is 3, but segment 0 of cu_seqlens_k has 4 rows"),
        ({"max_seqlen_q": torch.tensor(3)}, r"max_seqlen_q must be a Python int, got Tensor"),
        ({"max_seqlen_q": -1}, r"max_seqlen_q is -1, wanted 0 or more"),
        ({"activation": "relu"}, r"activation is 'relu', wanted one of sigmoid, softmax"),
        ({"scale": "big"}, r"scale must be a number, got str"),
        ({"bias": torch.zeros(())}, r"bias must be a number, got Tensor"),
        ({"backend": "scipy"}, r"sigmoid_attention: backend='scipy': this op has no such backend"),
    ],
)
def test_wrong_arguments(change, message, offsets):
    with pytest.raises(ValueError, match=message):
        ops.sigmoid_attention(**(arguments(offsets) | change))
