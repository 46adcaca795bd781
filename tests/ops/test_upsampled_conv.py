"""Against upsampling and convolving in plain PyTorch, in float64: result, moments and every gradient."""

import importlib
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from prior_fast import ops
from prior_fast.ops.upsampled_conv import upsampled_kernel

# Batch, channels in and out, height, width.
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 5, 1, 5),
    (2, 5, 3, 7, 1),
    (0, 3, 4, 2, 3),
    (2, 48, 16, 5, 3),
    (1, 16, 96, 3, 4),
    (1, 96, 48, 2, 3),
    (1, 16, 16, 13, 11),
]
BACKENDS = ["reference", "triton"]


def naive(x, weight, bias=None, relu=False):
    y = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    return F.relu(y) if relu else y


def draw(randn, shape):
    batch, inner, outer, height, width = shape
    return randn(batch, inner, height, width), randn(outer, inner, 3, 3), randn(outer)


def innermost(x):
    return x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()


def transposed(x, weight, bias):
    return F.conv_transpose2d(x, upsampled_kernel(weight), bias, stride=2, padding=1)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0]], ids=str)
def test_reference_upsamples_and_convolves(shape, randn, check_equal):
    check_equal(ops.upsampled_conv, naive, *draw(randn, shape))
    check_equal(transposed, naive, *draw(randn, shape))


# The yardstick is torch's transposed convolution, which adds the same products; one after upsampling adds others.
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0]], ids=str)
def test_precision(shape, randn, check_precision):
    check_precision(partial(ops.upsampled_conv, backend="triton"), transposed, *draw(randn, shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 3, 4), (1, 48, 16, 5, 13)], ids=str)
def test_float32_weights_are_rounded_once(shape, relu, dtype, randn):
    """Compared with float64 on the kernel's own rounding of the sums of weights: what is left is the products'."""
    x, weight, bias = draw(randn, shape)
    x, weight, bias = (t.detach().to(d).requires_grad_() for t, d in ((x, dtype), (weight, torch.float), (bias, dtype)))
    found = ops.upsampled_conv(x, weight, bias, relu=relu, backend="triton")
    ones = torch.ones(shape[1] * shape[2], 1, 2, 2)
    # Each of the four pixels of a square gets the weights of the copies that it has: sums over squares of 2x2 weights.
    sums = F.conv2d(weight.flatten(0, 1)[None], ones, padding=1, groups=len(ones)).view(shape[2], shape[1], 4, 4)
    taps = sums.flip(2, 3).transpose(0, 1).to(dtype).double()
    wanted = F.conv_transpose2d(x.double(), taps, bias.double(), stride=2, padding=1)
    wanted = F.relu(wanted) if relu else wanted
    rounding = torch.finfo(dtype).eps + 16 * torch.finfo(torch.float32).eps
    assert found.dtype == dtype
    assert (found.double() - wanted).abs().max() <= rounding * wanted.abs().max()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_relu_and_gradients_in_float32(shape, backend, randn, gradients):
    x, weight, bias = (t.detach().float().requires_grad_() for t in draw(randn, shape))
    doubles = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    found = ops.upsampled_conv(x, weight, bias, relu=True, backend=backend)
    wanted = naive(*doubles, relu=True) if shape[0] else doubles[0].new_empty(found.shape)
    assert found.shape == wanted.shape
    if not shape[0]:
        found.sum().backward()
        assert x.grad.shape == x.shape and not weight.grad.any() and not bias.grad.any()
        return
    # A number next to 0 may be on its other side in float32, so the gradient is that of the found signs.
    dy = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    own = gradients((found * dy).sum(), (x, weight, bias))
    signs = (found.detach() > 0).double()
    true = gradients((naive(*doubles) * signs * dy).sum(), doubles)
    for actual, expected in zip((found, *own), (wanted, *true), strict=True):
        assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("make", [innermost, lambda x: x.transpose(2, 3).contiguous().transpose(2, 3), lambda x: x])
def test_layouts_of_the_input(make, randn):
    x, weight, _ = (t.detach().float() for t in draw(randn, (2, 6, 4, 3, 5)))
    y = ops.upsampled_conv(make(x), weight, backend="triton")
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, naive(x, weight), rtol=1e-5, atol=1e-5)


def test_gradient_of_any_layout(randn, gradients):
    x, weight = (t.detach().float().requires_grad_() for t in draw(randn, (2, 6, 4, 3, 5))[:2])
    y = ops.upsampled_conv(x, weight, backend="triton")
    for dy in (torch.randn(y.shape), torch.randn(2, 1, 6, 1).expand(y.shape)):
        own = torch.autograd.grad(y, (x, weight), dy, retain_graph=True)
        true = torch.autograd.grad(naive(x, weight), (x, weight), dy)
        torch.testing.assert_close(own, true, rtol=1e-4, atol=1e-4)


def test_only_what_is_wanted_gets_a_gradient(randn):
    x, weight, bias = (t.detach().float() for t in draw(randn, (2, 3, 4, 3, 5)))
    for wanted in range(3):
        leaves = [t.clone().requires_grad_(number == wanted) for number, t in enumerate((x, weight, bias))]
        ops.upsampled_conv(*leaves, backend="triton").sum().backward()
        assert [t.grad is not None for t in leaves] == [number == wanted for number in range(3)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
# Few and many tiles: their moments are joined by one launch or by two.
@pytest.mark.parametrize("shape", [(1, 1, 3, 1, 1), (3, 4, 5, 9, 7), (2, 16, 16, 20, 16)], ids=str)
def test_moments(shape, offset, backend, randn, monkeypatch):
    if backend == "triton":
        monkeypatch.setattr("prior_fast.kernels._joined_moments.LEAST", 4)
    x, weight, bias = (t.detach().float() for t in draw(randn, shape))
    y, moments = ops.upsampled_conv(x, weight / shape[1], bias + offset, moments=True, backend=backend)
    assert moments.shape == (2, shape[2]) and moments.dtype == torch.float32 and not moments.requires_grad
    variance, mean = torch.var_mean(y.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(moments[0].double(), mean, rtol=3e-7, atol=1e-6)
    # The tiles' means are rounded, as if each number were. A difference of squares would have an error of eps mean^2.
    bound = 1e-6 * variance + 2 * torch.finfo(torch.float32).eps * mean.abs() * variance.sqrt() + 1e-12
    assert ((moments[1] - variance).abs() <= bound).all()


def test_moments_are_those_of_the_rounded_result(randn):
    x, weight, bias = draw(randn, (2, 5, 3, 9, 8))
    x = x.detach().bfloat16()
    y, moments = ops.upsampled_conv(x, weight.float(), bias.float() + 3, relu=True, moments=True, backend="triton")
    variance, mean = torch.var_mean(y.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(moments.double(), torch.stack([mean, variance]), rtol=1e-6, atol=1e-7)


def test_a_constant_channel_has_no_variance(randn):
    bias = torch.tensor([1e4, -3.0, 0.1])
    for backend in BACKENDS:
        _, moments = ops.upsampled_conv(
            torch.zeros(2, 4, 9, 8), torch.zeros(3, 4, 3, 3), bias, moments=True, backend=backend
        )
        torch.testing.assert_close(moments, torch.stack([bias, torch.zeros(3)]), rtol=1e-7, atol=1e-12)


@pytest.mark.filterwarnings("ignore:var_mean")
@pytest.mark.filterwarnings("ignore:invalid value")
def test_moments_of_no_image():
    for backend in BACKENDS:
        y, moments = ops.upsampled_conv(torch.zeros(0, 2, 3, 3), torch.ones(4, 2, 3, 3), moments=True, backend=backend)
        assert y.shape == (0, 4, 6, 6) and moments.shape == (2, 4) and moments.isnan().all()


def test_not_finite_numbers_are_kept(randn):
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 1] = float("nan")
    for backend in BACKENDS:
        y = ops.upsampled_conv(x, torch.ones(1, 1, 3, 3), relu=True, backend=backend)
        # The pixel's four copies and their neighbours.
        assert y.isnan().sum() == 16 and y[0, 0, 1:5, 1:5].isnan().all()


def test_two_runs_are_equal(randn):
    x, weight, bias = (t.detach().float() for t in draw(randn, (2, 4, 5, 9, 7)))
    for first, second in zip(*(ops.upsampled_conv(x, weight, bias, moments=True, backend="triton") for _ in range(2))):
        assert torch.equal(first, second)


def test_gradcheck(randn):
    x, weight, bias = draw(randn, (2, 2, 3, 2, 3))
    assert torch.autograd.gradcheck(ops.upsampled_conv, (x, weight, bias))
    assert torch.autograd.gradcheck(lambda *t: ops.upsampled_conv(*t, relu=True, moments=True)[0], (x, weight, bias))


@pytest.mark.parametrize(("relu", "moments"), [(False, False), (True, True)])
def test_passes_opcheck(relu, moments, randn):
    x, taps, bias = (randn(*shape).detach().float().requires_grad_() for shape in ((2, 3, 4, 2), (4, 2, 4, 3), (3,)))
    torch.library.opcheck(torch.ops.prior_fast.upsampled_conv.default, (x, taps, bias, relu, moments))
    dy = randn(2, 6, 8, 3).detach().float()
    torch.library.opcheck(torch.ops.prior_fast.upsampled_conv_backward.default, (dy, taps.detach()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_to_one_graph(backend, randn, check_compiled):
    dtype = torch.float64 if backend == "reference" else torch.float32
    cases = [
        [t.detach().to(dtype).requires_grad_() for t in draw(randn, shape)]
        for shape in ((7, 4, 5, 6, 8), (2, 4, 5, 9, 11), (6, 4, 5, 8, 9))
    ]
    check_compiled(partial(ops.upsampled_conv, relu=True, backend=backend), *map(tuple, cases))


def test_autocast_does_not_lower_the_precision(randn):
    x, weight, bias = (t.detach().float() for t in draw(randn, (2, 3, 4, 3, 5)))
    for backend in BACKENDS:
        with torch.autocast("cpu", torch.bfloat16):
            y = ops.upsampled_conv(x, weight, bias, backend=backend)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, naive(x, weight, bias), rtol=1e-5, atol=1e-5)


def test_the_reference_is_the_default(monkeypatch):
    monkeypatch.delenv("PRIOR_FAST_BACKEND", raising=False)
    # The name of the module on the package is that of the function.
    monkeypatch.setattr(importlib.import_module("prior_fast.ops.upsampled_conv"), "_upsampled_conv", None)
    assert ops.upsampled_conv(torch.zeros(1, 2, 3, 3), torch.zeros(4, 2, 3, 3)).shape == (1, 4, 6, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3, 4)}, r"x has shape \[2, 3, 4\], wanted \[B, C, H, W\], 4 dimensions"),
        ({"x": torch.zeros(2, 3, 0, 4)}, r"x has shape \[2, 3, 0, 4\], wanted .* at least one channel and pixel"),
        ({"x": torch.zeros(2, 3, 4, 4, dtype=torch.int32)}, r"x has dtype torch.int32, wanted one of float32"),
        ({"weight": torch.zeros(5, 4, 3, 3)}, r"weight has shape \[5, 4, 3, 3\], wanted .* with C = 3 as in x"),
        ({"weight": torch.zeros(5, 3, 4, 3)}, r"weight has shape \[5, 3, 4, 3\], .* with 3 = 3 as in a 3x3 convol"),
        ({"weight": torch.zeros(5, 3, 3, 3).double()}, r"weight has dtype torch.float64, wanted one of float32"),
        ({"weight": None}, r"weight must be a tensor \[N, C, 3, 3\], got NoneType"),
        ({"bias": torch.zeros(4)}, r"bias has shape \[4\], wanted \[N\] with N = 5 as in weight"),
        ({"bias": torch.zeros(5, device="meta")}, r"bias is on meta, wanted cpu, the device of x"),
        ({"backend": "cuda"}, r"upsampled_conv: backend='cuda': this op has no such backend"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"x": torch.zeros(2, 3, 4, 4), "weight": torch.zeros(5, 3, 3, 3)}
    with pytest.raises(ValueError, match=message):
        ops.upsampled_conv(**(arguments | change))
