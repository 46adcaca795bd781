import pytest
import torch
from torch.nn import functional as F

from prior_fast import ops

SHAPES = [(1, 1), (17, 1), (5, 50), (3, 7, 100), (17, 768), (2, 1024), (1, 3072)]


def naive(x, bias):
    return F.gelu(x + bias)


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_precision(shape, backend, randn, check_precision):
    """`naive` gets a rounded bias in 16 bits, as the op does here, so that both have the same inputs."""
    check_precision(
        lambda x, bias: ops.bias_gelu(x, bias if bias.dtype == torch.float64 else bias.float(), backend=backend),
        naive,
        randn(*shape),
        randn(shape[-1]),
    )


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_without_a_bias(backend, randn, check_precision):
    check_precision(lambda x: ops.bias_gelu(x, backend=backend), F.gelu, randn(17, 40))


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_far_from_zero(backend):
    """Nothing overflows, and the tails are those of torch."""
    x = torch.tensor([[-1e30, -100.0, -9.0, -5.0, -0.0, 5.0, 9.0, 100.0, 1e30]]).requires_grad_()
    found, wanted = ops.bias_gelu(x, backend=backend), F.gelu(x)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(y.sum(), x)[0] for y in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


def test_rows_that_lie_apart(randn):
    x, bias = randn(40, 34).detach().float(), randn(40).detach().float()[::2]
    leaf = x.requires_grad_()
    apart = ops.bias_gelu(leaf.T[::2, ::2], bias, backend="triton")
    torch.testing.assert_close(apart, naive(leaf.T[::2, ::2], bias), rtol=1e-5, atol=1e-6)
    weight = torch.randn(20, 17).T
    found, wanted = (torch.autograd.grad((y * weight).sum(), leaf)[0] for y in (apart, naive(leaf.T[::2, ::2], bias)))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_no_row():
    bias = torch.ones(5, requires_grad=True)
    y = ops.bias_gelu(torch.zeros(0, 5), bias, backend="triton")
    assert y.shape == (0, 5)
    assert torch.equal(torch.autograd.grad(y.sum(), bias)[0], torch.zeros(5))


def test_many_programs_share_the_rows(monkeypatch, randn):
    """The sum of the bias's gradient over programs with several tiles each, and over more of them than a step adds."""
    from prior_fast.kernels import bias_gelu as kernels

    x, bias = randn(150, 20).detach().float(), randn(20).detach().float().requires_grad_()
    weight = randn(150, 20).detach().float()
    for tiles in (kernels.Tiles(2, 16, 4, 3), kernels.Tiles(1, 16, 4, 70), kernels.Tiles(4, 32, 4, 1)):
        monkeypatch.setattr(kernels, "backward_tiles", lambda rows, columns, tiles=tiles: tiles)
        found, wanted = (
            torch.autograd.grad((ops.bias_gelu(x, bias, backend=b) * weight).sum(), bias)[0]
            for b in ("triton", "reference")
        )
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_gradcheck(randn):
    assert torch.autograd.gradcheck(ops.bias_gelu, (randn(3, 4), randn(4)))


def test_passes_opcheck(randn):
    x, bias = (t.detach().float().requires_grad_() for t in (randn(3, 5), randn(5)))
    torch.library.opcheck(torch.ops.prior_fast.bias_gelu.default, (x, bias))
    torch.library.opcheck(torch.ops.prior_fast.bias_gelu.default, (x, None))
    torch.library.opcheck(torch.ops.prior_fast.bias_gelu_backward.default, (x.detach(), x.detach(), bias.detach()))


def test_triton_compiles_to_one_graph(randn, check_compiled):
    def function(x, bias):
        return ops.bias_gelu(x.float(), bias.float(), backend="triton").double()

    check_compiled(function, (randn(7, 4), randn(4)), (randn(9, 4), randn(4)))


@pytest.mark.parametrize(
    ("x", "bias", "message"),
    [
        (torch.zeros(()), None, r"x has shape \[\], wanted \[\.\.\., C\] with at least one column"),
        (torch.zeros(2, 0), None, r"x has shape \[2, 0\], wanted \[\.\.\., C\] with at least one column"),
        (torch.zeros(2, 3), torch.zeros(2), r"bias has shape \[2\], wanted \[C\] with C = 3 as in x"),
        (torch.zeros(2, 3).half(), torch.zeros(3).half(), r"bias has dtype torch.float16, wanted one of float32"),
        (torch.zeros(2, 3).int(), None, r"x has dtype torch.int32, wanted one of float32"),
    ],
)
def test_wrong_arguments(x, bias, message):
    with pytest.raises(ValueError, match=message):
        ops.bias_gelu(x, bias)
