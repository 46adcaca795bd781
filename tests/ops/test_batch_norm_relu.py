"""Batch normalization with its ReLU: both backends against torch's own formula in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast import ops
from prior_fast.kernels import batch_norm_relu as kernels
from prior_fast.kernels.common.launch import recording

BACKENDS = ("reference", "triton")
FORMS = ("none", "before", "after", "none, added", "after, added")
# Two pixels, fewer rows than a tile, several parts, widths that are no multiple of 16, and more than a program's.
SHAPES = [(2, 3, 1, 1), (1, 64, 17, 1), (2, 48, 25, 20), (1, 1, 40, 25), (1, 100, 9, 13), (1, 256, 15, 10)]


@pytest.fixture
def images(rng: np.random.Generator) -> Callable[..., Tensor]:
    """`images(shape, dtype)` -> [B, C, h, w], the channels innermost; channels differ in mean and spread."""

    def make(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        batch, channels, height, width = shape
        spread, mean = rng.uniform(0.5, 3, channels), rng.normal(size=channels)
        values = rng.normal(size=(batch, height, width, channels)) * spread + mean
        return torch.tensor(values, dtype=dtype).permute(0, 3, 1, 2)

    return make


def plain(form: str, x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    """torch's layers, in the dtype of x."""
    y = F.batch_norm(x.relu() if form == "before" else x, None, None, weight, bias, training=True)
    y = y if residual is None else y + residual
    return y.relu() if form.startswith("after") else y


def call(form: str, x: Tensor, *parameters: Tensor | None, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    weight, bias, residual = parameters
    activation: Any = form.partition(",")[0]
    return ops.batch_norm_relu(x, weight, bias, activation=activation, residual=residual, **options)


def error(found: Tensor, wanted: Tensor) -> float:
    """The greatest error as a share of the greatest value."""
    assert found.shape == wanted.shape and found.isfinite().all()
    return float((found.detach().double() - wanted.detach()).abs().max() / wanted.detach().abs().max().clamp(min=1e-30))


def check(
    form: str, x: Tensor, residual: Tensor, dy: Tensor, affine: bool, rng: np.random.Generator, **options: Any
) -> None:
    """Result, moments and all gradients against torch in float64."""
    channels = x.shape[1]
    parameters = [torch.tensor(rng.normal(size=channels), dtype=torch.float32) if affine else None for _ in range(2)]
    given = [x, *parameters, residual if "added" in form else None]
    leaves = [None if each is None else each.detach().requires_grad_() for each in given]
    wide = [None if each is None else each.detach().double().requires_grad_() for each in given]
    y, mean, variance = call(form, *leaves, **options)
    wanted = plain(form, *wide)
    assert y.dtype == x.dtype and y.is_contiguous(memory_format=torch.channels_last)
    rounding = 2e-6 if x.dtype == torch.float32 else torch.finfo(x.dtype).eps
    assert error(y, wanted) < 2 * rounding
    entered = wide[0].relu() if form == "before" else wide[0]
    # The mean's error is a share of the deviations.
    deviation, true_mean = torch.std_mean(entered, (0, 2, 3))
    assert ((mean - true_mean).abs() < 1e-5 * deviation + 1e-6).all()
    assert ((variance - deviation**2).abs() < 1e-5 * deviation**2 + 1e-12).all()
    # Where y is next to zero, rounding decides whether the ReLU passes the gradient: such values get none.
    clear = ((wanted.abs() > 1e-3) | (wanted == 0)) & ((wanted == 0) == (y == 0)) if "after" in form else torch.ones(1)
    dy = dy * clear.to(dy.dtype)
    y.backward(dy)
    wanted.backward(dy.double())
    names = ("x", "weight", "bias", "residual")
    for name, own, true in zip(names, leaves, wide, strict=True):
        if own is None:
            continue
        if name in ("weight", "bias"):
            # Their terms nearly cancel: rounding is a share of what they would add up to with one sign.
            apart = (entered - true_mean[:, None, None]).detach()
            terms = dy.double() * apart / (deviation.detach() ** 2 + 1e-5).sqrt()[:, None, None]
            size = (terms if name == "weight" else dy.double()).abs().sum((0, 2, 3))
            assert ((own.grad - true.grad).abs() <= 4e-6 * size + 1e-6).all(), name
        elif name == "residual" or x.numel() > 2 * channels:  # of two values dx is zero, up to eps
            assert error(own.grad, true.grad) < 4 * rounding, name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_equals_torch_in_float64(
    form: str, shape: tuple[int, ...], backend: str, images: Callable[..., Tensor], rng: np.random.Generator
) -> None:
    check(form, *(images(shape) for _ in range(3)), True, rng, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_16_bits(
    form: str, dtype: torch.dtype, backend: str, images: Callable[..., Tensor], rng: np.random.Generator
) -> None:
    check(form, *(images((2, 48, 9, 11), dtype) for _ in range(3)), True, rng, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
def test_without_weight_and_bias(
    form: str, backend: str, images: Callable[..., Tensor], rng: np.random.Generator
) -> None:
    check(form, *(images((2, 16, 5, 7)) for _ in range(3)), False, rng, backend=backend)


@pytest.mark.parametrize("few", [0, 64])
@pytest.mark.parametrize("form", ["before", "after, added"])
def test_many_parts(
    form: str,
    few: int,
    images: Callable[..., Tensor],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parts of one and of several tiles, added by each program or by a launch of its own; programs of several tiles."""
    chosen = kernels.Tiles(16, sum_rows=8, unroll=2, programs=40, rows=32, few=few, own_programs=9)
    monkeypatch.setattr(kernels, "tiles", lambda channels, tensors: chosen)
    check(form, *(images((1, 20, 37, 23)) for _ in range(3)), True, rng, backend="triton")


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_wider_images_are_not_copied(
    form: str, images: Callable[..., Tensor], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Tensor:
        raise AssertionError("copied")

    monkeypatch.setattr(torch.Tensor, "copy_", refuse)
    x, residual, dy = (images((2, 64, 6, 5))[:, :48] for _ in range(3))
    assert kernels.row_stride(x) == 64
    check(form, x, residual, dy, True, rng, backend="triton")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["before", "after", "after, added"])
def test_padding(form: str, backend: str, images: Callable[..., Tensor], rng: np.random.Generator) -> None:
    """Further channels of x have no part in the result, and those of y are zeros."""
    wide, residual, dy = images((2, 24, 6, 5)), images((2, 20, 6, 5)), images((2, 32, 6, 5))
    wide[:, 20:], dy[:, 20:] = torch.nan, torch.nan
    parameters = [torch.tensor(rng.normal(size=20), dtype=torch.float32) for _ in range(2)]
    leaves = [wide, *parameters, *([residual] if "added" in form else [])]
    results = []
    for padded in (True, False):
        own = [each.detach().requires_grad_() for each in leaves]
        x, weight, bias, *rest = own
        sizes: dict[str, Any] = {"channels": 20, "width": 32} if padded else {}
        given = x if padded else x[:, :20]
        y, mean, variance = call(form, given, weight, bias, rest[0] if rest else None, backend=backend, **sizes)
        if padded:
            assert y.shape == (2, 32, 6, 5) and (y[:, 20:] == 0).all()
            assert y.is_contiguous(memory_format=torch.channels_last)
        y.backward(dy if padded else dy[:, :20])
        assert (x.grad[:, 20:] == 0).all()
        results.append([y[:, :20], mean, variance, *(each.grad for each in own)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "mean"), [(torch.float32, 1000.0), (torch.bfloat16, 100.0)])
def test_a_large_mean_keeps_the_variance(
    dtype: torch.dtype, mean: float, backend: str, rng: np.random.Generator
) -> None:
    x = torch.tensor(rng.normal(size=(2, 30, 29, 16)) + mean, dtype=dtype).permute(0, 3, 1, 2)
    y, own, variance = ops.batch_norm_relu(x, backend=backend)
    wide = x.double()
    torch.testing.assert_close(own.double(), wide.mean((0, 2, 3)), rtol=2e-7, atol=0)
    torch.testing.assert_close(variance.double(), wide.var((0, 2, 3)), rtol=1e-5, atol=0)
    assert error(y, plain("none", wide, None, None, None)) < (1e-4 if dtype == torch.float32 else 2.0**-7)


def test_a_far_first_value_does_not_spoil_the_variance(rng: np.random.Generator) -> None:
    values = rng.normal(size=(1, 60, 50, 4))
    values[0, 0, 0] = 3000.0
    x = torch.tensor(values, dtype=torch.float32).permute(0, 3, 1, 2)
    variance = ops.batch_norm_relu(x, backend="triton")[2]
    torch.testing.assert_close(variance.double(), x.double().var((0, 2, 3)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_constant_channel(backend: str, images: Callable[..., Tensor]) -> None:
    x = images((2, 16, 13, 11))
    x[:, 3] = 0.3
    x.requires_grad_()
    bias = torch.full((16,), 2.0)
    y, mean, variance = ops.batch_norm_relu(x, None, bias, backend=backend)
    assert variance[3] < 1e-12 and abs(mean[3] - 0.3) < 1e-6
    torch.testing.assert_close(y[:, 3], torch.full_like(y[:, 3], 2.0), rtol=0, atol=1e-4)
    y.square().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["none", "before", "after", "after, added"])
def test_what_is_not_a_number_stays_so(form: str, backend: str, images: Callable[..., Tensor]) -> None:
    x, residual = images((2, 16, 5, 5)), images((2, 16, 5, 5))
    x[1, 3, 2, 2] = torch.nan
    x.requires_grad_()
    y, *_ = call(form, x, None, None, residual if "added" in form else None, backend=backend)
    assert y[:, 3].isnan().all() and y[:, :3].isfinite().all() and y[:, 4:].isfinite().all()
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert gradient[1, 3, 2, 2].isnan() and gradient[:, 4:].isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_running_statistics_are_those_of_the_layer(backend: str, images: Callable[..., Tensor]) -> None:
    from prior_fast.model.rectified_norm import track

    one, other = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
    for _ in range(3):
        x = images((2, 16, 5, 7))
        track(one, *ops.batch_norm_relu(x, backend=backend)[1:])
        other(x)
    for (name, own), wanted in zip(one.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-5, atol=1e-6, msg=name)


def test_other_layouts_are_copied(images: Callable[..., Tensor], rng: np.random.Generator) -> None:
    x, residual, dy = (images((2, 20, 3, 5)).contiguous() for _ in range(3))
    assert kernels.row_stride(x) is None
    check("after, added", x, residual, dy, True, rng, backend="triton")
    check("none", x, residual, dy[:1].expand(x.shape), True, rng, backend="triton")


@pytest.mark.parametrize(
    ("strides", "shape", "wanted"),
    [
        ((60, 1, 20, 4), (2, 4, 3, 5), 4),
        ((90, 1, 30, 6), (2, 4, 3, 5), 6),
        ((999, 1, 20, 4), (1, 4, 3, 5), 4),
        ((7, 1, 99, 99), (2, 4, 1, 1), 7),
        ((99, 1, 99, 99), (1, 4, 1, 1), 4),
        ((60, 1, 24, 4), (2, 4, 3, 5), None),
        ((60, 15, 5, 1), (2, 4, 3, 5), None),
        ((0, 1, 0, 0), (2, 4, 3, 5), None),
        ((15, 9, 5, 1), (2, 1, 3, 5), 1),
    ],
)
def test_rows_are_even(strides: tuple[int, ...], shape: tuple[int, ...], wanted: int | None) -> None:
    assert kernels.row_stride(torch.empty(1000).as_strided(shape, strides)) == wanted


def test_launches() -> None:
    """Two in each direction, and a third where many parts are added."""
    for channels, side, wanted in ((1024, 14, 2), (64, 56, 3)):
        x = torch.empty(128, side, side, channels, device="meta").permute(0, 3, 1, 2)
        moments = torch.empty(2, channels, device="meta")
        with recording() as forward:
            kernels.batch_norm_relu_fwd(x, None, None, None, 1e-5, 2, channels, channels)
        with recording() as backward:
            kernels.batch_norm_relu_bwd(x, x, None, None, moments, None, 1e-5, 2)
        assert len(forward) == len(backward) == wanted


@pytest.mark.parametrize("added", [False, True])
def test_passes_opcheck(added: bool, images: Callable[..., Tensor]) -> None:
    x, residual = (images((2, 20, 3, 5)).requires_grad_() for _ in range(2))
    weight, bias = (torch.ones(17).requires_grad_() for _ in range(2))
    other = images((2, 17, 3, 5)).requires_grad_() if added else None
    inputs = (x, weight, bias, other, 1e-5, 2, 17, 24)
    torch.library.opcheck(torch.ops.prior_fast.batch_norm_relu.default, inputs)
    y, moments = torch.ops.prior_fast.batch_norm_relu(*inputs)
    kept = y.detach() if added else None
    backward = (residual.new_ones(y.shape), x.detach(), weight.detach(), bias.detach(), moments, kept, 1e-5, 2)
    torch.library.opcheck(torch.ops.prior_fast.batch_norm_relu_backward.default, backward)


def test_gradcheck(randn: Callable[..., Tensor]) -> None:
    def function(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
        return ops.batch_norm_relu(x, weight, bias, activation="after", residual=residual)[0]

    assert torch.autograd.gradcheck(function, (randn(2, 3, 2, 2), randn(3), randn(3), randn(2, 3, 2, 2)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_to_one_graph(backend: str, randn: Callable[..., Tensor], check_compiled: Callable[..., None]) -> None:
    def function(x: Tensor, weight: Tensor) -> Tensor:
        y = ops.batch_norm_relu(x.float(), weight.float(), activation="after", backend=backend)[0]
        return (2 * y).double()

    check_compiled(function, (randn(2, 3, 4, 5), randn(3)), (randn(4, 3, 5, 6), randn(3)))


def test_reads_nothing_back(images: Callable[..., Tensor], no_host_read: Any) -> None:
    x = images((2, 16, 3, 5)).requires_grad_()
    with no_host_read:
        ops.batch_norm_relu(x, activation="after", backend="triton")[0].sum().backward()


X = torch.zeros(2, 4, 3, 3)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.zeros(2, 4), {}, r"x has shape \[2, 4\], wanted \[B, X, h, w\], 4 dimensions"),
        (torch.zeros(1, 4, 1, 1), {}, r"x has shape \[1, 4, 1, 1\], wanted more than 1 value per channel"),
        (X, {"weight": torch.ones(3)}, r"weight has shape \[3\], wanted \[C\] with C = 4 as in x"),
        (X.bfloat16(), {"bias": torch.ones(4).bfloat16()}, r"bias has dtype torch.bfloat16, wanted one of float32"),
        (X, {"residual": X[:1]}, r"residual has shape \[1, 4, 3, 3\], wanted \[B, C, h, w\] with B = 2 as in x"),
        (X, {"residual": X.bfloat16()}, r"residual has dtype torch.bfloat16, wanted one of float32"),
        (X, {"residual": X, "activation": "before"}, r"residual does not go with activation='before'"),
        (X, {"activation": "relu"}, r"activation='relu', wanted one of none, before, after"),
        (X, {"channels": 5}, r"channels is 5, wanted 1 to 4, the channels of x"),
        (X, {"width": 3}, r"width is 3, wanted 4 or more"),
    ],
)
def test_wrong_arguments(x: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.batch_norm_relu(x, **options)
