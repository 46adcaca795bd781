import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast import extension, ops

CPP = pytest.param("cpp", marks=pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="not built"))


def naive(q, k, lengths_q, lengths_k, activation):
    weights = q.new_zeros(len(lengths_q), q.shape[1], max(lengths_q), max(lengths_k))
    for b, (qs, ks) in enumerate(zip(q.split(lengths_q), k.split(lengths_k), strict=True)):
        logits = (qs.transpose(0, 1) @ ks.permute(1, 2, 0)) * q.shape[-1] ** -0.5
        block = logits.sigmoid() if activation == "sigmoid" else logits.softmax(dim=-1)
        weights[b, :, : len(qs), : len(ks)] = block
    return weights


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("lengths_q", "lengths_k"), [((3, 1, 5), (2, 7, 1)), ((2, 0), (0, 4)), ((1,), (1,))])
def test_shapes(lengths_q, lengths_k, activation, randn, offsets, check_equal):
    sizes = offsets(*lengths_q), offsets(*lengths_k), max(lengths_q), max(lengths_k)
    check_equal(
        lambda q, k: ops.attention_weights(q, k, *sizes, activation=activation),
        lambda q, k: naive(q, k, lengths_q, lengths_k, activation),
        randn(sum(lengths_q), 3, 5),
        randn(sum(lengths_k), 3, 5),
    )


def test_agree_with_the_attention(randn, offsets):
    q, k, v = randn(5, 2, 4), randn(6, 2, 4), randn(6, 2, 3)
    sizes = offsets(2, 3), offsets(5, 1), 3, 5
    weights = ops.attention_weights(q, k, *sizes, bias=0.5)
    output = ops.sigmoid_attention(q, k, v, *sizes, bias=0.5)
    torch.testing.assert_close(torch.einsum("hqk,khd->qhd", weights[0, :, :2, :5], v[:5]), output[:2])
    torch.testing.assert_close(torch.einsum("hqk,khd->qhd", weights[1, :, :3, :1], v[5:]), output[2:])


# Lengths of queries and keys, heads, D: within a tile; sides without a row, a width that fills no block; several tiles.
PRECISION = [((9, 2), (4, 12), 2, 32), ((1, 0, 3), (0, 3, 17), 1, 70), ((3, 70), (66, 1), 1, 20)]


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("lengths_q", "lengths_k", "heads", "d"), PRECISION)
def test_precision(lengths_q, lengths_k, heads, d, activation, backend, randn, offsets, check_precision):
    sizes = offsets(*lengths_q), offsets(*lengths_k), max(lengths_q), max(lengths_k)
    check_precision(
        lambda q, k: ops.attention_weights(q, k, *sizes, activation=activation, backend=backend),
        lambda q, k: naive(q, k, lengths_q, lengths_k, activation),
        randn(sum(lengths_q), heads, d),
        randn(sum(lengths_k), heads, d),
    )


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=4),
    heads=st.integers(1, 3),
    d=st.integers(1, 20),
    longer=st.sampled_from([0, 0, 60]),
    activation=st.sampled_from(["sigmoid", "softmax"]),
)
def test_triton_on_any_shape(lengths, heads, d, longer, activation):
    """`longer` is what the maxima exceed the segments by; with 60 there are several tiles."""
    generator = torch.Generator().manual_seed(d)
    sides = list(zip(*lengths, strict=True))
    q, k = (torch.randn(heads, sum(n), d, generator=generator).transpose(0, 1).requires_grad_() for n in sides)
    sizes = *(torch.tensor([0, *n]).cumsum(0) for n in sides), *(max(n) + longer for n in sides)
    torch.use_deterministic_algorithms(True)  # fills uninitialized memory with NaN
    try:
        found, wanted = (
            ops.attention_weights(q, k, *sizes, scale=0.8, bias=-0.1, activation=activation, backend=backend)
            for backend in ("triton", "reference")
        )
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        assert found.is_contiguous()
        coefficients = torch.randn(wanted.shape, generator=generator)
        gradients = [torch.autograd.grad((w * coefficients).sum(), (q, k)) for w in (found, wanted)]
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
    finally:
        torch.use_deterministic_algorithms(False)


def test_autocast_does_not_lower_precision(randn, offsets, gradients):
    x = randn(6, 1, 16).detach().float().requires_grad_()
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            weights = ops.attention_weights(x, x, offsets(4, 2), offsets(4, 2), 4, 4, backend="triton")
            results.append([weights, *gradients(weights.sum(), [x])])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_passes_opcheck(randn, offsets):
    q, k = (randn(rows, 2, 3).detach().float().requires_grad_() for rows in (4, 5))
    for activation in ("sigmoid", "softmax"):
        arguments = (q, k, offsets(4, 0), offsets(3, 2), 4, 3, None, 0.1, activation)
        torch.library.opcheck(torch.ops.prior_fast.attention_weights.default, arguments)


def test_gradcheck(randn, offsets):
    assert torch.autograd.gradcheck(
        lambda q, k: ops.attention_weights(q, k, offsets(2, 1), offsets(1, 3), 2, 3), (randn(3, 1, 2), randn(4, 1, 2))
    )


def test_triton_compiles_to_one_graph(randn, offsets, check_compiled):
    def function(q, k, *sizes):
        q, k = q.float(), k.float()
        once = ops.attention_weights(q, k, *sizes, activation="softmax", backend="triton")
        return (once + ops.attention_weights(2 * q, k, *sizes, bias=0.2, backend="triton")).double()

    check_compiled(
        function,
        (randn(7, 2, 4), randn(6, 2, 4), offsets(3, 4), offsets(2, 4), 4, 5),
        (randn(9, 2, 4), randn(8, 2, 4), offsets(2, 2, 5), offsets(2, 3, 3), 6, 3),
    )


def test_compiles_to_one_graph(randn, offsets, check_compiled):
    check_compiled(
        ops.attention_weights,
        (randn(7, 2, 4), randn(6, 2, 4), offsets(3, 4), offsets(2, 4), 4, 5),
        (randn(9, 2, 4), randn(8, 2, 4), offsets(2, 2, 5), offsets(2, 3, 3), 6, 3),
    )


@pytest.mark.parametrize("backend", ["reference", "triton", CPP])
def test_reads_nothing_back(backend, randn, offsets, no_host_read):
    q, k = (randn(rows, 2, 4).detach().float().requires_grad_() for rows in (5, 6))
    sizes = offsets(2, 3), offsets(0, 6), 3, 6
    with no_host_read:
        for activation in ("sigmoid", "softmax"):
            ops.attention_weights(q, k, *sizes, activation=activation, backend=backend).sum().backward()


def test_wrong_arguments(offsets):
    x = torch.zeros(5, 2, 4)
    with pytest.raises(ValueError, match=r"max_seqlen_q is 2, but segment 0 of cu_seqlens_q has 5 rows"):
        ops.attention_weights(x, x, offsets(5), offsets(5), 2, 5)
    with pytest.raises(ValueError, match=r"k has shape \[5, 2, 3\], wanted \[Tk, H, D\] with D = 4 as in q"):
        ops.attention_weights(x, torch.zeros(5, 2, 3), offsets(5), offsets(5), 5, 5)
