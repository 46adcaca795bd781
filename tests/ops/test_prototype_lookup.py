import pytest
import torch

from prior_fast import ops
from prior_fast.ops._philox import gumbel


def naive_output(x, bank, noise, tau):
    return torch.softmax((x @ bank.T + noise.to(x.dtype)) / tau, dim=-1) @ bank


@pytest.mark.parametrize("tau", ["0.9", "0.05"])
@pytest.mark.parametrize("scale", ["unit", "soft"])
def test_golden(scale, tau, golden_file, gradients):
    file = golden_file("spb")
    x, bank = file.leaf(f"{scale}.input"), file.leaf(f"{scale}.p.embed.weight")
    prefix = f"{scale}.tau{tau}"
    output, index, l1 = ops.prototype_lookup(x, bank, float(tau), gumbel=file[f"{prefix}.gumbel"].to(x.dtype))
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


def test_noise_is_optional_and_seeds_are_equal(randn):
    x, bank = randn(6, 4), randn(9, 4)
    plain = ops.prototype_lookup(x, bank, 0.5)
    assert torch.equal(plain.index, (x @ bank.T).argmax(dim=1))
    torch.testing.assert_close(plain.output, naive_output(x, bank, torch.zeros(()), 0.5))
    runs = [ops.prototype_lookup(x, bank, 0.5, seed=s) for s in (7, torch.tensor(7), torch.tensor([7]), 8)]
    assert all(torch.equal(run.output, runs[0].output) for run in runs[1:3])
    assert not torch.equal(runs[3].output, runs[0].output) and not torch.equal(plain.output, runs[0].output)


def test_rows_of_the_joined_batch(randn):
    x, bank = randn(6, 4), randn(9, 4)
    whole = ops.prototype_lookup(x, bank, 0.5, seed=1).output
    halves = [ops.prototype_lookup(x[i : i + 3], bank, 0.5, seed=1, first_row=i).output for i in (0, 3)]
    torch.testing.assert_close(torch.cat(halves), whole, rtol=1e-14, atol=1e-14)


def test_non_contiguous(randn, check_equal):
    noise = randn(4, 6).detach()
    check_equal(
        lambda x, bank: ops.prototype_lookup(x.T, bank[::2], 0.5, gumbel=noise.T[:4, :4].T).output,
        lambda x, bank: naive_output(x.T, bank[::2], noise[:4, :4], 0.5),
        randn(3, 4),
        randn(8, 3),
    )


def test_precision(randn, check_precision):
    noise = gumbel(0, 20, 40)
    check_precision(
        lambda x, bank: ops.prototype_lookup(x, bank, 0.7, gumbel=noise).output,
        lambda x, bank: naive_output(x, bank, noise, 0.7),
        randn(20, 16),
        randn(40, 16),
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
