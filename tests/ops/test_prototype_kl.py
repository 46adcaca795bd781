import pytest
import torch

from prior_fast import ops


def naive(target, prediction, bank):
    p, q = (torch.softmax(x @ bank.T, dim=-1) for x in (target, prediction))
    return (p * (p.log() - q.log())).sum(dim=-1).mean()


@pytest.mark.parametrize("scale", ["unit", "soft"])
def test_golden(scale, golden_file, gradients):
    file = golden_file("spb")
    names = {"input": "input", "input2": "input2", "p.embed.weight": "embed"}
    leaves = [file.leaf(f"{scale}.{name}") for name in names]
    kl = ops.prototype_kl(*leaves)
    file.check_scalar(kl, f"{scale}.kl")
    for gradient, name in zip(gradients(kl, leaves), names.values(), strict=True):
        file.check(gradient, f"{scale}.g_kl.{name}")


@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (1, 5, 3), (7, 13, 5)])
def test_shapes(n, k, d, randn, check_equal):
    check_equal(ops.prototype_kl, naive, randn(n, d), randn(n, d), randn(k, d))


def test_no_rows(randn, gradients):
    leaves = [randn(0, 3), randn(0, 3), randn(4, 3)]
    kl = ops.prototype_kl(*leaves)
    assert kl.item() == 0 and all(g.abs().sum().item() == 0 for g in gradients(kl, leaves))


def test_equal_distributions_are_at_zero(randn):
    x, bank = randn(5, 4), randn(7, 4)
    assert ops.prototype_kl(x, x.clone(), bank).item() == 0


def test_far_apart_stays_finite(gradients):
    """Logits of 1e4: the plain formula takes the logarithm of 0."""
    x, bank = torch.eye(2).requires_grad_(), 1e4 * torch.eye(2)
    kl = ops.prototype_kl(x, x.flip(0), bank)
    assert kl.item() == pytest.approx(1e4) and gradients(kl, [x])[0].isfinite().all()


def test_non_contiguous(randn, check_equal):
    check_equal(
        lambda a, b, e: ops.prototype_kl(a.T, b[:, ::2], e.T),
        lambda a, b, e: naive(a.T, b[:, ::2], e.T),
        randn(3, 5),
        randn(5, 6),
        randn(3, 4),
    )


def test_precision(randn, check_precision):
    def naive_in_logarithms(target, prediction, bank):
        p, q = (torch.log_softmax(x @ bank.T, dim=-1) for x in (target, prediction))
        return (p.exp() * (p - q)).sum(dim=-1).mean()

    check_precision(ops.prototype_kl, naive_in_logarithms, randn(20, 8), randn(20, 8), randn(30, 8))


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": torch.zeros(1, 4)}, r"prediction has shape \[1, 4\], wanted \[N, D\] with N = 3 as in target"),
        ({"prototypes": torch.zeros(6, 1)}, r"prototypes has shape \[6, 1\], wanted \[K, D\] with D = 4 as in target"),
        ({"prototypes": torch.zeros(0, 4)}, r"prototypes has shape \[0, 4\], wanted at least one row"),
        ({"target": torch.zeros(3, 4).half()}, r"prediction has dtype torch.float32, wanted torch.float16"),
        ({"backend": "referense"}, r"backend='referense' is no backend, did you mean 'reference'\?"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"target": torch.zeros(3, 4), "prediction": torch.zeros(3, 4), "prototypes": torch.zeros(6, 4)}
    with pytest.raises(ValueError, match=message):
        ops.prototype_kl(**(arguments | change))
