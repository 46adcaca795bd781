import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast import ops
from prior_fast.ops.common.philox import gumbel

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def naive_output(x, bank, noise, tau):
    return torch.softmax((x @ bank.T + noise.to(x.dtype)) / tau, dim=-1) @ bank


@pytest.mark.parametrize("tau", ["0.9", "0.05"])
@pytest.mark.parametrize("scale", ["unit", "soft"])
def test_golden(scale, tau, golden_case, gradients):
    file, backend = golden_case("spb")
    x, bank = file.leaf(f"{scale}.input"), file.leaf(f"{scale}.p.embed.weight")
    prefix = f"{scale}.tau{tau}"
    noise = file[f"{prefix}.gumbel"].to(x.dtype)
    output, index, l1 = ops.prototype_lookup(x, bank, float(tau), gumbel=noise, backend=backend)
    file.check(output, f"{prefix}.output")
    file.check_scalar(l1, f"{prefix}.loss")
    assert torch.equal(index, file[f"{prefix}.index"])
    for loss, name in ((l1, "g_loss"), ((output * file["w.output"].to(x.dtype)).sum(), "g_output")):
        for gradient, leaf in zip(gradients(loss, [x, bank]), ("input", "embed"), strict=True):
            file.check(gradient, f"{prefix}.{name}.{leaf}")


@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (7, 13, 5), (5, 3, 17), (0, 4, 3)])
@pytest.mark.parametrize("tau", [0.9, torch.tensor(0.3)])
def test_shapes_from_a_seed(n, k, d, tau, randn, check_equal):
    noise = gumbel(11, n, k, first_row=2, dtype=torch.float64)
    x, bank = randn(n, d), randn(k, d)

    def lookup(x, bank):
        return ops.prototype_lookup(x, bank, tau, seed=11, first_row=2)

    check_equal(lambda x, bank: lookup(x, bank).output, lambda x, e: naive_output(x, e, noise, tau), x, bank)
    if n:
        check_equal(
            lambda x, b: lookup(x, b).l1, lambda x, b: (naive_output(x, b, noise, tau) - x).abs().mean(), x, bank
        )
    assert lookup(x, bank).index.tolist() == (x @ bank.T + noise).argmax(dim=1).tolist()


def test_no_rows(randn):
    output, index, l1 = ops.prototype_lookup(torch.zeros(0, 3), torch.ones(4, 3), 1.0, seed=0)
    assert output.shape == (0, 3) and index.shape == (0,) and index.dtype == torch.int64 and l1.item() == 0


def test_non_contiguous(randn, check_equal):
    noise = randn(4, 6).detach()
    check_equal(
        lambda x, bank: ops.prototype_lookup(x.T, bank[::2], 0.5, gumbel=noise.T[:4, :4].T).output,
        lambda x, bank: naive_output(x.T, bank[::2], noise[:4, :4], 0.5),
        randn(3, 4),
        randn(8, 3),
    )


# Prototypes and columns of one and several tiles and pieces, which they do not fill; rows of two tiles; one row.
SHAPES = [(20, 40, 16), (1, 1, 1), (37, 70, 33), (3, 130, 70), (1, 17, 100)]


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize(("n", "k", "d"), SHAPES)
def test_precision(n, k, d, backend, randn, check_precision):
    noise = gumbel(0, n, k)
    check_precision(
        lambda x, bank: ops.prototype_lookup(x, bank, 0.7, gumbel=noise, backend=backend).output,
        lambda x, bank: naive_output(x, bank, noise, 0.7),
        randn(n, d),
        randn(k, d),
    )


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize(("n", "k", "d"), [(20, 40, 16), (37, 70, 33), (20, 17, 100)])
def test_precision_of_the_l1_term(n, k, d, backend, randn, check_precision):
    noise = gumbel(1, n, k)
    check_precision(
        lambda x, bank: ops.prototype_lookup(x, bank, 0.7, gumbel=noise, backend=backend).l1,
        lambda x, bank: (naive_output(x, bank, noise, 0.7) - x).abs().mean(),
        randn(n, d),
        randn(k, d),
    )


@pytest.mark.parametrize(("tau", "scale"), [(1e-6, 1), (0.05, 1), (1e6, 1), (0.7, 30), (1e-6, 30), (1e6, 30)])
def test_precision_at_any_temperature_and_size(tau, scale, randn, check_precision):
    """Inner products up to some 1e4. The plain formula subtracts the maximum first; else float16 would overflow."""

    def naive(x, bank):
        logits = x @ bank.T
        return torch.softmax((logits - logits.detach().amax(dim=1, keepdim=True)) / tau, dim=-1) @ bank

    check_precision(
        lambda x, bank: ops.prototype_lookup(x, bank, tau, backend="triton").output,
        naive,
        (scale * randn(10, 20).detach()).requires_grad_(),
        (scale * randn(18, 20).detach()).requires_grad_(),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtypes_of_the_results(dtype, randn):
    x, bank = randn(5, 4).to(dtype), randn(6, 4).to(dtype)
    output, index, l1 = ops.prototype_lookup(x, bank, 0.5, seed=3)
    assert (output.dtype, index.dtype, l1.dtype) == (dtype, torch.int64, torch.float32)
    exact = ops.prototype_lookup(x.double(), bank.double(), 0.5, seed=3)
    torch.testing.assert_close(l1.double(), exact.l1, rtol=1e-5, atol=0)


def test_gradcheck(randn):
    function = lambda x, bank: ops.prototype_lookup(x, bank, 0.6, seed=5)[::2]  # noqa: E731
    assert torch.autograd.gradcheck(function, (randn(3, 2), randn(4, 2)))


def test_temperature_and_noise_get_no_gradient(randn):
    tau, noise = torch.tensor(0.5, requires_grad=True), randn(3, 4)
    ops.prototype_lookup(randn(3, 2), randn(4, 2), tau, gumbel=noise).output.sum().backward()
    assert tau.grad is None and noise.grad is None


def test_compiles_to_one_graph(randn, check_compiled):
    def function(x, bank, tau, seed):
        output, index, l1 = ops.prototype_lookup(x, bank, tau, seed=seed, first_row=3)
        return (output * index.unsqueeze(1)).sum() + l1

    tau, seed = torch.tensor(0.5), torch.tensor([3])
    check_compiled(function, *((randn(n, 4), randn(9, 4), tau, seed) for n in (5, 8, 3)))


def test_reads_nothing_back(randn, no_host_read):
    x, bank, tau, seed = randn(5, 4), randn(9, 4), torch.tensor(0.5), torch.tensor([3])
    with no_host_read:
        for noise in ({"seed": seed}, {"gumbel": randn(5, 9)}, {}):
            output, _, l1 = ops.prototype_lookup(x, bank, tau, **noise)
            (output.sum() + l1).backward()


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.tuples(st.integers(0, 34), st.integers(1, 66), st.integers(0, 20)),
    tau=st.sampled_from([0.1, 1.0, 50.0]),
    tau_dtype=st.sampled_from([None, torch.float32, torch.float64, torch.bfloat16]),
    noise=st.sampled_from(["none", "seed", "given"]),
    seed=st.integers(-(2**63), 2**63 - 1),
    first_row=st.integers(0, 2**40),
)
def test_triton_on_any_shape(sizes, tau, tau_dtype, noise, seed, first_row):
    n, k, d = sizes
    generator = torch.Generator().manual_seed(n + k)
    x, bank, given = (torch.randn(b, a, generator=generator).T for a, b in ((n, d), (k, d), (n, k)))
    leaves = [x.requires_grad_(), bank.requires_grad_()]
    if tau_dtype is not None:
        tau = torch.tensor(tau, dtype=tau_dtype)
    arguments = {"none": {}, "seed": {"seed": seed, "first_row": first_row}, "given": {"gumbel": given}}[noise]
    runs = [ops.prototype_lookup(x, bank, tau, **arguments, backend=backend) for backend in ("triton", "reference")]
    assert torch.equal(runs[0].index, runs[1].index)
    weights = torch.randn(n, d, generator=generator)
    gradients = [torch.autograd.grad((run.output * weights).sum() + 7 * run.l1, leaves) for run in runs]
    for found, wanted in zip(runs[0][::2] + gradients[0], runs[1][::2] + gradients[1], strict=True):
        size = wanted.abs().max().item() if wanted.numel() else 0
        torch.testing.assert_close(found, wanted, rtol=2e-5, atol=1e-4 * size)


def test_equal_logits_give_the_first_index():
    bank = torch.zeros(200, 2)
    bank[[3, 70, 71, 150]] = torch.tensor([1.0, 2.0])
    x = torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, -1.0]])
    for backend in ("reference", "triton"):
        assert ops.prototype_lookup(x, bank, 0.5, backend=backend).index.tolist() == [3, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tau", [1e-40, 1e-6, 1.0, 1e6, 3e38])
def test_stays_finite(tau, dtype, randn):
    x, bank = (100 * randn(6, 20)).to(dtype).detach(), (100 * randn(9, 20)).to(dtype).detach()
    x.requires_grad_(), bank.requires_grad_()
    output, _, l1 = ops.prototype_lookup(x, bank, tau, seed=1, backend="triton")
    (output.sum() / 1024 + l1).backward()
    assert all(t.isfinite().all() for t in (output, l1, x.grad, bank.grad))


def test_float16_keeps_the_gradient_of_a_mean_over_many(randn):
    """Each number's share of l1 is at most 1e-6, which float16 hardly represents: products must not be in float16."""
    leaves = [(x.detach().half() / 4).requires_grad_() for x in (randn(300, 33), randn(20, 33))]
    gradients = []
    for backend in ("triton", "reference"):
        loss = ops.prototype_lookup(*leaves, 1.0, backend=backend).l1
        gradients.append(torch.autograd.grad(loss * 2**8, leaves))
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found.float(), wanted.float(), rtol=0, atol=1e-2 * wanted.abs().max().item())


@pytest.mark.parametrize("part", ["output", "l1", "x", "bank"])
def test_parts_of_the_gradient(part, randn):
    """Gradients of only one output, and for only one input."""
    x, bank = (
        t.detach().float().requires_grad_(part != name) for t, name in ((randn(6, 5), "bank"), (randn(7, 5), "x"))
    )
    leaves = [t for t in (x, bank) if t.requires_grad]
    gradients = []
    for backend in ("triton", "reference"):
        run = ops.prototype_lookup(x, bank, 0.5, seed=1, backend=backend)
        loss = (run.output**2).sum() if part == "output" else run.l1
        gradients.append(torch.autograd.grad(loss, leaves))
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_triton_repeats_itself_also_under_autocast(dtype, randn):
    leaves = [t.detach().to(dtype).requires_grad_() for t in (randn(33, 17), randn(65, 17))]
    runs = []
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output, index, l1 = ops.prototype_lookup(*leaves, 0.5, seed=2, backend="triton")
            loss = output.float().square().sum() + l1
        runs.append([output, index, l1, *torch.autograd.grad(loss, leaves)])
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_passes_opcheck(randn):
    x, bank = (t.detach().float().requires_grad_() for t in (randn(5, 3), randn(7, 3)))
    tau, noise, seed = torch.tensor(0.5), torch.randn(5, 7), torch.tensor(3)
    forward = torch.ops.prior_fast.prototype_lookup.default
    backward = torch.ops.prior_fast.prototype_lookup_backward.default
    for noises in ((None, None), (noise, None), (None, seed)):
        torch.library.opcheck(forward, (x, bank, tau, *noises, 4))
    output, _, l1, *saved = (t.detach() for t in forward(x, bank, tau, noise, None, 0))
    for gradients in ((output, l1), (output, None), (None, l1)):
        torch.library.opcheck(backward, (*gradients, x.detach(), bank.detach(), tau, *saved, gradients[1] is not None))


def test_triton_compiles_to_one_graph(randn, check_compiled):
    """Two lookups in a graph that serves all numbers of rows, seeds, temperatures and first rows."""

    def function(x, bank, tau, seed, first_row):
        first = ops.prototype_lookup(x, bank, tau, seed=seed, first_row=first_row, backend="triton")
        second = ops.prototype_lookup(first.output, bank, tau, backend="triton")
        return (second.output * first.index.unsqueeze(1)).sum() + first.l1 + second.l1

    def case(n, first_row):
        x, bank = (t.detach().float().requires_grad_() for t in (randn(n, 4), randn(9, 4)))
        return x, bank, torch.tensor(1 / n), torch.tensor([n]), first_row

    check_compiled(function, *(case(n, first_row) for n, first_row in ((5, 30), (8, 7), (3, 2**33))))


def test_launches(randn):
    """On the meta device: the launchers only allocate, and launch three kernels each."""
    from prior_fast.kernels.common.launch import recording
    from prior_fast.kernels.prototype_lookup import prototype_lookup_bwd, prototype_lookup_fwd

    x, bank, tau = (torch.empty(shape, device="meta") for shape in ((50, 768), (512, 768), ()))
    seed = torch.empty((), dtype=torch.int64, device="meta")
    with recording() as forward:
        output, _, l1, *saved = prototype_lookup_fwd(x, bank, tau, None, seed, 0)
    with recording() as backward:
        prototype_lookup_bwd(output, l1, x, bank, tau, *saved, True)
    with recording() as of_rows:
        prototype_lookup_bwd(output, None, x, bank, tau, *saved, False)
    assert [len(calls) for calls in (forward, backward, of_rows)] == [3, 3, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau": 0.0}, r"tau is 0.0, wanted more than 0"),
        ({"tau": -1}, r"tau is -1.0, wanted more than 0"),
        ({"tau": float("nan")}, r"tau is nan, wanted more than 0"),
        ({"tau": torch.tensor(-2.0)}, r"tau is -2.0, wanted more than 0"),
        ({"tau": torch.ones(1)}, r"tau has shape \[1\], wanted a tensor without dimensions"),
        ({"tau": None}, r"tau must be a number, got NoneType"),
        ({"x": torch.zeros(3, 5)}, r"prototypes has shape \[6, 4\], wanted \[K, D\] with D = 5 as in x"),
        ({"prototypes": torch.zeros(0, 4)}, r"prototypes has shape \[0, 4\], wanted at least one row"),
        ({"prototypes": torch.zeros(6, 4).double()}, r"prototypes has dtype torch.float64, wanted torch.float32"),
        ({"gumbel": torch.zeros(3, 6), "seed": 1}, r"gumbel and seed are both given"),
        ({"gumbel": torch.zeros(3, 1)}, r"gumbel has shape \[3, 1\], wanted \[N, K\] with K = 6 as in prototypes"),
        ({"gumbel": torch.zeros(3, 6).double()}, r"gumbel has dtype torch.float64, wanted one of float32"),
        ({"seed": torch.tensor([1, 2])}, r"seed has shape \[2\], wanted one element"),
        ({"seed": torch.tensor(1.0)}, r"seed has dtype torch.float32, wanted one of int64"),
        ({"seed": 1.5}, r"seed must be an int or an int64 tensor, got float"),
        ({"seed": 2**63}, r"seed is 9223372036854775808, wanted a number that int64 holds"),
        ({"first_row": -1}, r"first_row is -1, wanted 0 or more"),
        ({"backend": "cuda"}, r"this op has no such backend. can serve: reference"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"x": torch.zeros(3, 4), "prototypes": torch.zeros(6, 4), "tau": 0.5} | change
    with pytest.raises(ValueError, match=message):
        ops.prototype_lookup(**arguments)
