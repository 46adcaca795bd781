"""Batch normalization with a ReLU before or after it equals torch's layers, forward, backward and in its statistics."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast import extension
from prior_fast.model import rectified_norm as module
from prior_fast.model.image_encoder import Bottleneck, ResNet
from prior_fast.model.norm_kernels import AFTER, BEFORE, NONE
from prior_fast.model.rectified_norm import fuses, norm_relu, normalize, relu_norm

needs_library = pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="the cpu library is not built")
OPS = torch.ops.prior_fast
FORMS = ("plain", "relu before", "relu after", "with a residual")
# Fewer values than a block, a single channel, a single pixel, more than one part, channels that fill no vector.
SHAPES = [
    (2, 1, 1, 1),
    (3, 5, 1, 1),
    (2, 700, 3, 1),
    (4, 16, 9, 7),
    (1, 1, 700, 400),
    (5, 24, 80, 80),
    (2, 257, 13, 11),
]


@pytest.fixture
def images(rng: np.random.Generator) -> Callable[..., Tensor]:
    """`images(shape, dtype)` -> [B, C, h, w] with the channels innermost; channels differ in mean and spread."""

    def make(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        batch, channels, height, width = shape
        spread, mean = rng.uniform(0.5, 3, channels), rng.normal(size=channels)
        values = rng.normal(size=(batch, height, width, channels)) * spread + mean
        return torch.tensor(values, dtype=dtype).permute(0, 3, 1, 2)

    return make


def fused(form: str, norm: nn.BatchNorm2d, x: Tensor, residual: Tensor) -> Tensor:
    if form == "relu before":
        return relu_norm(norm, x)
    if form == "plain":
        return normalize(norm, x)
    return norm_relu(norm, x, residual if form == "with a residual" else None)


def plain(form: str, norm: nn.BatchNorm2d, x: Tensor, residual: Tensor) -> Tensor:
    if form == "relu before":
        return norm(F.relu(x))
    y = norm(x)
    if form == "with a residual":
        y = y + residual
    return y if form == "plain" else F.relu(y)


def layer(channels: int, rng: np.random.Generator, affine: bool = True) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, affine=affine)
    if affine:
        with torch.no_grad():
            norm.weight.copy_(torch.tensor(rng.normal(size=channels)))
            norm.bias.copy_(torch.tensor(rng.normal(size=channels)))
    return norm


def error(found: Tensor, wanted: Tensor) -> float:
    """The greatest error as a share of the greatest value."""
    assert found.shape == wanted.shape and found.isfinite().all()
    return float((found.detach().double() - wanted.detach()).abs().max() / wanted.detach().abs().max().clamp(min=1e-30))


@needs_library
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch_in_float64(
    form: str, dtype: torch.dtype, shape: tuple[int, ...], images: Callable[..., Tensor], rng: np.random.Generator
) -> None:
    x, residual, dy = (images(shape, dtype) for _ in range(3))
    norm = layer(shape[1], rng)
    wide = nn.BatchNorm2d(shape[1]).double()
    wide.load_state_dict(norm.state_dict())
    assert fuses(norm, x) and not fuses(wide, x.double())
    leaves, wide_leaves = (
        [each.detach().to(kind).requires_grad_() for each in (x, residual)] for kind in (dtype, torch.double)
    )
    y, wanted = fused(form, norm, *leaves), plain(form, wide, *wide_leaves)
    assert y.dtype == dtype and y.stride() == x.stride()
    rounding = 2.0**-8 if dtype == torch.bfloat16 else 2e-6
    assert error(y, wanted) < 2 * rounding
    # Where y is next to zero, rounding decides whether the ReLU passes the gradient: such values get none.
    clear = (
        (wanted.detach().abs() > 1e-3) | (wanted.detach() == 0)
        if "after" in form or "residual" in form
        else torch.ones(())
    )
    near = (wanted.detach() == 0) != (y.detach() == 0)
    dy = dy * (clear * ~near).to(dtype)
    y.backward(dy)
    wanted.backward(dy.double())
    count = x.numel() // shape[1]
    if count > 2:  # of two values dx is zero, up to eps
        assert error(leaves[0].grad, wide_leaves[0].grad) < 4 * rounding
    if form == "with a residual":
        assert error(leaves[1].grad, wide_leaves[1].grad) == 0
    # The terms of a weight's gradient nearly cancel: their rounding is a share of what they would add up to with one
    # sign.
    entered = x.double().relu() if form == "relu before" else x.double()
    deviation, mean = torch.std_mean(entered, (0, 2, 3), correction=0, keepdim=True)
    terms = {"weight": dy.double() * (entered - mean) / (deviation**2 + norm.eps).sqrt(), "bias": dy.double()}
    for name, each in terms.items():
        apart = (getattr(norm, name).grad - getattr(wide, name).grad).abs()
        assert (apart <= 4e-6 * each.abs().sum((0, 2, 3)) + 1e-30).all(), name
    assert int(norm.num_batches_tracked) == 1
    for name in ("running_mean", "running_var"):
        assert error(getattr(norm, name), getattr(wide, name)) < 2e-6, name


@needs_library
@pytest.mark.parametrize("form", FORMS)
def test_rounding_does_not_depend_on_the_threads(
    form: str, images: Callable[..., Tensor], rng: np.random.Generator
) -> None:
    x, residual, dy = (images((3, 24, 130, 130)) for _ in range(3))
    norm, found, before = layer(24, rng), [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            leaves = [each.detach().requires_grad_() for each in (x, residual)]
            y = fused(form, norm, *leaves)
            y.backward(dy)
            found.append((y.detach(), leaves[0].grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", [NONE, BEFORE, AFTER])
def test_what_is_not_finite_stays_so(activation: int, dtype: torch.dtype, images: Callable[..., Tensor]) -> None:
    x, dy = images((4, 3, 9, 9), dtype), images((4, 3, 9, 9), dtype)
    x[2, 0, 4, 4] = torch.nan
    moments = OPS.norm_moments(x, 3, activation=activation)
    scales = OPS.norm_scales(moments, None, None, 1e-5)
    y = OPS.norm_apply(x, scales, activation)
    assert y[:, 0].isnan().all() and y[:, 1:].isfinite().all()
    sums = OPS.norm_gradient_sums(dy, x, scales, activation)
    dx = OPS.norm_gradient(dy, x, scales, sums, moments, activation)
    assert dx[2, 0, 4, 4].isnan() and dx[:, 1:].isfinite().all()
    added = OPS.norm_apply(x, scales, AFTER, torch.full_like(x, torch.nan))
    assert added.isnan().all()


@needs_library
def test_infinite_and_large_values_round_like_torch(images: Callable[..., Tensor]) -> None:
    """Scales of 1 and 0: what is stored is what bfloat16 makes of the float32."""
    x = torch.tensor([3.4e38, -3.4e38, torch.inf, -torch.inf, 1e-40, -0.0, 1.00390625, 1.01171875])
    x = x.view(1, 8, 1, 1).expand(2, 8, 1, 1).contiguous(memory_format=torch.channels_last)
    scales = torch.zeros(5, 8)
    scales[3], scales[4] = 1 / 3, 0.25
    narrow = x.bfloat16()
    wanted = (narrow.double() * float(scales[3, 0]) + 0.25).float().bfloat16()
    assert torch.equal(OPS.norm_apply(narrow, scales), wanted)
    assert torch.equal(OPS.norm_apply(narrow, scales, AFTER), wanted.relu())


@pytest.mark.parametrize("form", FORMS)
def test_without_the_library_layers_are_torchs(
    form: str, images: Callable[..., Tensor], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.extension, "unavailable", lambda kind: "not built")
    x, residual = images((3, 4, 5, 6)), images((3, 4, 5, 6))
    one, other = layer(4, rng), nn.BatchNorm2d(4)
    other.load_state_dict(one.state_dict())
    assert not fuses(one, x)
    assert torch.equal(fused(form, one, x, residual), plain(form, other, x, residual))


def test_fuses_only_what_it_computes(images: Callable[..., Tensor]) -> None:
    class Other(nn.BatchNorm2d):
        pass

    x = images((2, 4, 5, 6))
    built = extension.unavailable("cpu") is None
    assert fuses(nn.BatchNorm2d(4), x) is built
    assert fuses(nn.BatchNorm2d(4, affine=False), x.bfloat16()) is built
    assert not fuses(nn.BatchNorm2d(4).eval(), x)
    assert not fuses(nn.BatchNorm2d(4, track_running_stats=False), x)
    assert not fuses(nn.BatchNorm2d(4, momentum=None), x)
    assert not fuses(Other(4), x)
    assert not fuses(nn.BatchNorm2d(4), x.contiguous())  # the channels outermost
    assert not fuses(nn.BatchNorm2d(4), x.half()) and not fuses(nn.BatchNorm2d(4).double(), x.double())


def test_a_single_value_for_each_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm_relu(nn.BatchNorm2d(4), torch.randn(1, 4, 1, 1))


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_is_torchs(form: str, images: Callable[..., Tensor], rng: np.random.Generator) -> None:
    x, residual = images((3, 4, 5, 6)), images((3, 4, 5, 6))
    norm = layer(4, rng).eval()
    assert torch.equal(fused(form, norm, x, residual), plain(form, norm, x, residual))


@needs_library
@pytest.mark.parametrize(("project", "stride"), [(True, 2), (True, 1), (False, 1)])
def test_a_block_equals_itself_without_kernels(
    project: bool, stride: int, images: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, forward, backward and statistics, with the same weights."""
    channels = 6 if project else 8
    block, other = (Bottleneck(channels, 2, stride, project).to(memory_format=torch.channels_last) for _ in range(2))
    other.load_state_dict(block.state_dict())
    x = images((4, channels, 8, 8)).requires_grad_()
    y = block(x)
    y.sin().sum().backward()
    gradient, x.grad = x.grad, None
    monkeypatch.setattr(module.extension, "unavailable", lambda kind: "not built")
    wanted = other(x)
    wanted.sin().sum().backward()
    torch.testing.assert_close(y, wanted, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(gradient, x.grad, rtol=1e-3, atol=1e-4)
    for (name, one), two in zip(block.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-3, atol=2e-3, msg=name)
    for (name, one), two in zip(block.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6, msg=name)


def test_names_and_shapes_are_those_of_torchvisions_blocks() -> None:
    from torchvision.models.resnet import Bottleneck as TheirBlock
    from torchvision.models.resnet import ResNet as Theirs

    theirs = Theirs(TheirBlock, [2, 1, 1, 1]).state_dict()
    ours = ResNet((2, 1, 1, 1), 64).state_dict()
    assert set(ours) == {name for name in theirs if not name.startswith("fc.")}
    assert all(ours[name].shape == theirs[name].shape for name in ours if name != "conv1.weight")
