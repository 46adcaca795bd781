import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast import ops

# The interpreter, which is numpy, warns of the differences of infinities that the kernels mask.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


def naive(target, prediction, bank):
    p, q = (torch.softmax(x @ bank.T, dim=-1) for x in (target, prediction))
    return (p * (p.log() - q.log())).sum(dim=-1).mean()


@pytest.mark.parametrize("scale", ["unit", "soft"])
def test_golden(scale, golden_case, gradients):
    file, backend = golden_case("spb")
    names = {"input": "input", "input2": "input2", "p.embed.weight": "embed"}
    leaves = [file.leaf(f"{scale}.{name}") for name in names]
    kl = ops.prototype_kl(*leaves, backend=backend)
    file.check_scalar(kl, f"{scale}.kl")
    for gradient, name in zip(gradients(kl, leaves), names.values(), strict=True):
        file.check(gradient, f"{scale}.g_kl.{name}")


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_the_divergence_is_of_the_target_from_the_prediction_not_the_reverse(backend, randn):
    """KL(target || prediction): the target's probabilities weight the logarithms."""
    target, prediction, bank = (x.detach().float() for x in (randn(6, 5), randn(6, 5), randn(9, 5)))
    kl = ops.prototype_kl(target, prediction, bank, backend=backend).item()
    forward, reverse = (naive(*pair, bank).item() for pair in ((target, prediction), (prediction, target)))
    assert abs(forward - reverse) > 0.01 * forward
    assert kl == pytest.approx(forward, rel=1e-4)


@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (1, 5, 3), (7, 13, 5)])
def test_shapes(n, k, d, randn, check_equal):
    check_equal(ops.prototype_kl, naive, randn(n, d), randn(n, d), randn(k, d))


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_no_rows(backend, randn, gradients):
    leaves = [x.detach().float().requires_grad_() for x in (randn(0, 3), randn(0, 3), randn(4, 3))]
    kl = ops.prototype_kl(*leaves, backend=backend)
    assert kl.item() == 0 and all(g.abs().sum().item() == 0 for g in gradients(kl, leaves))


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_equal_distributions_are_at_zero(backend, randn):
    x, bank = randn(5, 4).float(), randn(7, 4).float()
    assert ops.prototype_kl(x, x.clone(), bank, backend=backend).item() == 0


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_far_apart_stays_finite(backend, gradients):
    """With logits of 1e4, the plain formula takes the logarithm of 0."""
    x, bank = torch.eye(2).requires_grad_(), 1e4 * torch.eye(2)
    kl = ops.prototype_kl(x, x.flip(0), bank, backend=backend)
    assert kl.item() == pytest.approx(1e4) and gradients(kl, [x])[0].isfinite().all()


def test_non_contiguous(randn, check_equal):
    check_equal(
        lambda a, b, e: ops.prototype_kl(a.T, b[:, ::2], e.T),
        lambda a, b, e: naive(a.T, b[:, ::2], e.T),
        randn(3, 5),
        randn(5, 6),
        randn(3, 4),
    )


def naive_in_logarithms(target, prediction, bank):
    p, q = (torch.log_softmax(x @ bank.T, dim=-1) for x in (target, prediction))
    return (p.exp() * (p - q)).sum(dim=-1).mean()


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize(("n", "k", "d"), [(20, 30, 8), (1, 1, 1), (37, 70, 33), (3, 600, 17), (1, 17, 100)])
def test_precision(n, k, d, backend, randn, check_precision):
    """Sizes that do not fill tiles and pieces, of one and of several tiles and pieces."""
    check_precision(
        lambda *leaves: ops.prototype_kl(*leaves, backend=backend),
        naive_in_logarithms,
        *(randn(n, d), randn(n, d), randn(k, d)),
    )


@pytest.mark.parametrize("scale", [0.01, 30])
def test_precision_at_any_size(scale, randn, check_precision):
    """Inner products up to some 1e4, and down to some 1e-4: distributions that hardly differ."""
    check_precision(
        lambda *leaves: ops.prototype_kl(*leaves, backend="triton"),
        naive_in_logarithms,
        *((scale * randn(rows, 20).detach()).requires_grad_() for rows in (10, 10, 18)),
    )


def test_dtype_of_the_result(randn):
    x = randn(5, 4).to(torch.bfloat16)
    assert ops.prototype_kl(x, x, x).dtype == torch.float32


def test_gradcheck(randn):
    assert torch.autograd.gradcheck(ops.prototype_kl, (randn(3, 2), randn(3, 2), randn(4, 2)))


def test_compiles_to_one_graph(randn, check_compiled):
    check_compiled(ops.prototype_kl, *((randn(n, 4), randn(n, 4), randn(9, 4)) for n in (5, 8)))


def test_reads_nothing_back(randn, no_host_read):
    leaves = [randn(3, 2), randn(3, 2), randn(4, 2)]
    with no_host_read:
        ops.prototype_kl(*leaves).backward()


@settings(max_examples=12, deadline=None)
@given(sizes=st.tuples(st.integers(0, 34), st.integers(1, 66), st.integers(0, 20)))
def test_triton_on_any_shape(sizes):
    n, k, d = sizes
    generator = torch.Generator().manual_seed(n + k)
    leaves = [torch.randn(d, rows, generator=generator).T.requires_grad_() for rows in (n, n, k)]
    found, wanted = (ops.prototype_kl(*leaves, backend=backend) for backend in ("triton", "reference"))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    for gradient, other in zip(*(torch.autograd.grad(kl, leaves) for kl in (found, wanted)), strict=True):
        size = other.abs().max().item() if other.numel() else 0
        torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-5 * size + 1e-7)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
def test_parts_of_the_gradient(wanted, randn):
    inputs = [x.detach().float() for x in (randn(6, 5), randn(6, 5), randn(7, 5))]
    leaves = [inputs[i].requires_grad_() for i in wanted]
    runs = [torch.autograd.grad(ops.prototype_kl(*inputs, backend=b), leaves) for b in ("triton", "reference")]
    for found, other in zip(*runs, strict=True):
        torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_triton_repeats_itself_also_under_autocast(dtype, randn):
    leaves = [x.detach().to(dtype).requires_grad_() for x in (randn(33, 17), randn(33, 17), randn(65, 17))]
    runs = []
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            kl = ops.prototype_kl(*leaves, backend="triton")
        runs.append([kl, *torch.autograd.grad(kl, leaves)])
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_passes_opcheck(randn):
    leaves = [x.detach().float().requires_grad_() for x in (randn(5, 3), randn(5, 3), randn(7, 3))]
    forward = torch.ops.prior_fast.prototype_kl.default
    torch.library.opcheck(forward, leaves)
    saved = [x.detach() for x in (*leaves, *forward(*leaves)[1:])]
    for parts in ((True, True), (False, True), (True, False)):
        torch.library.opcheck(torch.ops.prior_fast.prototype_kl_backward.default, (torch.ones(()), *saved, *parts))


def test_triton_compiles_to_one_graph(randn, check_compiled):
    """Two uses in a graph that serves all numbers of rows."""

    def function(target, prediction, bank):
        first = ops.prototype_kl(target, prediction, bank, backend="triton")
        return first + ops.prototype_kl(2 * prediction, target, bank, backend="triton")

    def case(n):
        return tuple(x.detach().float().requires_grad_() for x in (randn(n, 4), randn(n, 4), randn(9, 4)))

    check_compiled(function, *(case(n) for n in (5, 8, 3)))


def test_launches():
    """On the meta device: the launchers only allocate, and launch three and two kernels."""
    from prior_fast.kernels.common.launch import recording
    from prior_fast.kernels.prototype_kl import prototype_kl_bwd, prototype_kl_fwd

    target, prediction, bank = (torch.empty(rows, 768, device="meta") for rows in (50, 50, 512))
    with recording() as forward:
        kl, *saved = prototype_kl_fwd(target, prediction, bank)
    with recording() as backward:
        prototype_kl_bwd(kl, target, prediction, bank, *saved, True, True)
    assert [len(calls) for calls in (forward, backward)] == [3, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": torch.zeros(1, 4)}, r"prediction has shape \[1, 4\], wanted \[N, D\] with N = 3 as in target"),
        ({"prototypes": torch.zeros(6, 1)}, r"prototypes has shape \[6, 1\], wanted \[K, D\] with D = 4 as in target"),
        ({"prototypes": torch.zeros(0, 4)}, r"prototypes has shape \[0, 4\], wanted at least one row"),
        ({"target": torch.zeros(3, 4).half()}, r"prediction has dtype torch.float32, wanted torch.float16"),
        ({"backend": "referense"}, r"backend='referense' is no backend: did you mean 'reference'\?"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"target": torch.zeros(3, 4), "prediction": torch.zeros(3, 4), "prototypes": torch.zeros(6, 4)}
    with pytest.raises(ValueError, match=message):
        ops.prototype_kl(**(arguments | change))
