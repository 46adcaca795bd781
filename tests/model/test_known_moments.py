"""Batch normalization that takes its statistics from the upsampled convolution's kernels, in the image decoder."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from prior_fast.model.batch_norm import JoinedBatchNorm2d
from prior_fast.model.image_decoder import _NormalizedConv
from prior_fast.model.known_moments import normalize_known, wants_moments
from prior_fast.model.upsampled_conv import UpsampledConv2d
from prior_fast.ops.upsampled_conv import upsampled_conv
from prior_fast.training.batch_counters import uncounted

ORDERS = ("after_relu", "before_relu")
# Images, channels in and out, height, width: a single pixel, odd sizes, channels of which tiles are made.
SHAPES = [(1, 1, 1, 1, 1), (3, 5, 6, 4, 3), (2, 4, 3, 1, 5), (2, 16, 16, 5, 7)]
NAMES = ("y", "dx", "convolution's weight", "weight", "bias", "running mean", "running variance")


@pytest.fixture
def randn(rng: np.random.Generator) -> Callable[..., Tensor]:
    """`randn(*sizes)` -> float32, of four sizes with the channels innermost."""

    def draw(*sizes: int) -> Tensor:
        x = torch.tensor(rng.normal(size=sizes), dtype=torch.float32)
        return x.contiguous(memory_format=torch.channels_last) if len(sizes) == 4 else x

    return draw


@pytest.fixture
def layers(randn: Callable[..., Tensor]) -> Callable[..., tuple[_NormalizedConv, _NormalizedConv]]:
    """`layers(order, inner, outer)` -> the same layer with the kernels and with torch's convolution."""

    def make(order: str, inner: int, outer: int, bias: bool = False) -> tuple[_NormalizedConv, _NormalizedConv]:
        own = _NormalizedConv(UpsampledConv2d(inner, outer, bias=bias), order)  # type: ignore[arg-type]
        norm = norm_of(own)
        with torch.no_grad():
            for x in (own[0].weight, norm.weight, norm.bias, norm.running_mean):
                x.copy_(randn(*x.shape))
        twin = copy.deepcopy(own)
        own[0].backend = "triton"  # type: ignore[assignment]
        return own, twin

    return make


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of the op's calls in the layer."""
    found: list[dict[str, Any]] = []

    def watched(*arguments: Any, **own: Any) -> Any:
        found.append({name: value for name, value in own.items() if name != "backend"})
        return upsampled_conv(*arguments, **own)

    monkeypatch.setattr("prior_fast.model.upsampled_conv.upsampled_conv", watched)
    return found


def norm_of(layer: _NormalizedConv) -> nn.BatchNorm2d:
    (norm,) = (each for each in layer if isinstance(each, nn.BatchNorm2d))
    return norm


def results(layer: _NormalizedConv, x: Tensor, dy: Tensor, narrow: bool = False) -> dict[str, Tensor]:
    """Output, gradients and statistics of one step."""
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        y = layer(x)
    norm = norm_of(layer)
    wanted = [x, layer[0].weight, norm.weight, norm.bias]
    gradients = torch.autograd.grad(y, wanted, dy.to(y.dtype))  # type: ignore[arg-type]
    assert int(norm.num_batches_tracked) == 1  # type: ignore[arg-type]
    found = [y.detach(), *gradients, norm.running_mean, norm.running_var]
    return dict(zip(NAMES, found, strict=True))  # type: ignore[arg-type]


def error(found: Tensor, wanted: Tensor, size: Tensor | None = None) -> float:
    """The norm of the error as a share of the norm of what is wanted, or of `size`."""
    assert found.shape == wanted.shape and found.isfinite().all()
    apart = (found.detach().double() - wanted.detach()).norm()
    return float(apart / (wanted if size is None else size).detach().norm().clamp(min=1e-30))


@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_step_equals_that_of_torchs_layers(
    shape: tuple[int, ...], order: str, narrow: bool, layers: Any, randn: Callable[..., Tensor], options: list[Any]
) -> None:
    batch, inner, outer, height, width = shape
    own, twin = layers(order, inner, outer)
    exact = copy.deepcopy(twin).double()
    x, dy = randn(batch, inner, height, width), randn(batch, outer, 2 * height, 2 * width)
    found, plain = results(own, x, dy, narrow), results(twin, x, dy, narrow)
    truth = results(exact, x.double(), dy.double())
    assert options == [{"relu": order == "after_relu", "moments": True}]
    # Triton's interpreter cuts to bfloat16 where a GPU rounds.
    rounding = torch.finfo(torch.bfloat16).eps if narrow else 4e-6
    # The terms of these sums nearly cancel where there are few: rounding is a share of their absolute values.
    sums = dict.fromkeys(("weight", "bias"), dy.abs().sum((0, 2, 3)))
    for name, wanted in truth.items():
        assert found[name].dtype == plain[name].dtype, name
        yardstick = error(plain[name], wanted, sums.get(name))
        assert error(found[name], wanted, sums.get(name)) <= 2 * yardstick + rounding, name
    for name in ("y", "dx"):
        assert found[name].is_contiguous(memory_format=torch.channels_last), name


@pytest.mark.parametrize("order", ORDERS)
def test_a_small_variance_beside_a_large_mean(order: str, layers: Any, randn: Callable[..., Tensor]) -> None:
    """1000 +- 0.01, where float32 has steps of 6e-5."""
    own, twin = layers(order, 4, 6, bias=True)
    for layer in (own, twin):
        with torch.no_grad():
            layer[0].weight.mul_(0.01 / 6)
            layer[0].bias.fill_(1000.0)
    x, dy = randn(3, 4, 6, 5), randn(3, 6, 12, 10)
    exact = copy.deepcopy(twin).double()
    found, plain = results(own, x, dy), results(twin, x, dy)
    truth = results(exact, x.double(), dy.double())
    assert 0.003 < exact[0](x.double()).std().item() < 0.03
    for name, wanted in truth.items():
        assert error(found[name], wanted) <= 2 * error(plain[name], wanted) + 4e-6, name


def test_the_large_mean_costs_no_digits_beside_its_own(rng: np.random.Generator) -> None:
    """The error of the result is that of the moments' rounding, as with torch's layer."""
    x = torch.tensor(1000 + 0.01 * rng.normal(size=(4, 3, 9, 8)), dtype=torch.float32)
    norm, twin = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    found = normalize_known(norm, x, moments_of(x.double()).float())
    wanted = nn.BatchNorm2d(3).double()(x.double())
    # Half a step of the mean, in deviations.
    bound = 3.1e-5 / float(x.double().std((0, 2, 3)).min()) + 1e-6
    assert float((found - wanted).detach().abs().max()) <= bound
    assert error(found, wanted) <= 2 * error(twin(x), wanted) + 1e-6
    torch.testing.assert_close(norm.running_var, twin.running_var, rtol=1e-6, atol=1e-9)


def moments_of(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0)
    return torch.stack([mean, variance])


@pytest.mark.parametrize("affine", [True, False])
def test_the_gradient_is_that_of_the_formula(affine: bool, rng: np.random.Generator) -> None:
    """By differences in float64, with moments that follow x."""
    x = torch.tensor(rng.normal(size=(2, 3, 3, 2)), requires_grad=True)
    norm = nn.BatchNorm2d(3, affine=affine).double()
    for each in norm.parameters():
        nn.init.normal_(each, generator=torch.Generator().manual_seed(int(rng.integers(1000))))
    inputs = (x, *norm.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: normalize_known(norm, x, moments_of(x)), inputs)


@pytest.mark.parametrize("frozen", [(), ("weight",), ("bias",), ("weight", "bias"), ("x",), ("x", "weight")], ids=str)
def test_only_what_is_trained_gets_a_gradient(frozen: tuple[str, ...], randn: Callable[..., Tensor]) -> None:
    x, dy = randn(2, 3, 4, 5), randn(2, 3, 4, 5)
    norm, found = nn.BatchNorm2d(3), []
    nn.init.normal_(norm.weight)
    leaves = {"x": x, "weight": norm.weight, "bias": norm.bias}
    for name, leaf in leaves.items():
        leaf.requires_grad_(name not in frozen)
    for y in (normalize_known(norm, x, moments_of(x)), norm(x)):
        y.backward(dy)
        found.append({name: leaf.grad for name, leaf in leaves.items()})
        for leaf in leaves.values():
            leaf.grad = None
    for name, own in found[0].items():
        assert (own is None) is (name in frozen), name
        torch.testing.assert_close(own, found[1][name], rtol=1e-5, atol=1e-5)


class Reductions(TorchDispatchMode):
    """Counts the calls that make a vector of an image."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        found = result if isinstance(result, tuple) else (result,)
        image = any(isinstance(x, Tensor) and x.dim() == 4 for x in args)
        self.count += image and any(isinstance(x, Tensor) and x.dim() == 1 and len(x) for x in found)
        return result


@pytest.mark.parametrize("order", ORDERS)
def test_the_image_is_not_read_for_statistics(order: str, layers: Any, randn: Callable[..., Tensor]) -> None:
    x = randn(2, 4, 3, 3).requires_grad_()
    own, twin = layers(order, 4, 6)
    counts = []
    for layer in (own, nn.Sequential(*twin)):
        with Reductions() as forward:
            y = layer(x)
        with Reductions() as backward:
            y.backward(torch.ones_like(y))
        counts.append((forward.count, backward.count))
    # Backward the sums are those of dy, and of its product with the centered x. One call of torch's makes both.
    assert counts == [(0, 2), (1, 1)]


@contextmanager
def unchanged(options: list[Any]) -> Iterator[None]:
    """Asserts that the calls within ask for no moments."""
    del options[:]
    yield
    assert options in ([], [{}])


class Other(nn.BatchNorm2d):
    pass


def no_momentum(layer: _NormalizedConv) -> None:
    norm_of(layer).momentum = None


def untracked(layer: _NormalizedConv) -> None:
    norm = norm_of(layer)
    norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None


def other_class(layer: _NormalizedConv) -> None:
    norm_of(layer).__class__ = Other


def evaluated(layer: _NormalizedConv) -> None:
    layer.eval()


@pytest.mark.parametrize("change", [no_momentum, untracked, other_class, evaluated])
@pytest.mark.parametrize("order", ORDERS)
def test_other_normalizations_stay_as_they_are(
    order: str, change: Callable[..., None], layers: Any, randn: Callable[..., Tensor], options: list[Any]
) -> None:
    own, _ = layers(order, 4, 6)
    change(own)
    twin, x = copy.deepcopy(own), randn(2, 4, 3, 5)
    with unchanged(options):
        y = own(x)
    plain = nn.Sequential(*twin)(x)
    torch.testing.assert_close(y, plain, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(own.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)
    assert not wants_moments(norm_of(own))


@pytest.mark.parametrize("order", ORDERS)
def test_torchs_convolution_and_float64_are_not_asked(
    order: str, layers: Any, randn: Callable[..., Tensor], options: list[Any]
) -> None:
    own, twin = layers(order, 4, 6)
    for layer, x in ((twin, randn(2, 4, 3, 3)), (own.double(), randn(2, 4, 3, 3).double())):
        with unchanged(options):
            plain = nn.Sequential(*copy.deepcopy(layer))(x)
            torch.testing.assert_close(layer(x), plain, rtol=1e-5, atol=1e-5)
        assert not options


def test_normalizations_joined_over_ranks_do_not_take_the_moments_of_one() -> None:
    assert wants_moments(nn.BatchNorm2d(3))
    assert not wants_moments(nn.SyncBatchNorm(3)) and not wants_moments(JoinedBatchNorm2d(3))


def test_a_subclass_computes_its_own_result(layers: Any, randn: Callable[..., Tensor], options: list[Any]) -> None:
    class Doubled(UpsampledConv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * F.conv_transpose2d(x, torch.ones(4, 6, 4, 4), stride=2, padding=1)

    own, _ = layers("after_relu", 4, 6)
    own[0].__class__ = Doubled
    x = randn(2, 4, 3, 3)
    plain = nn.Sequential(*copy.deepcopy(own))(x)
    with unchanged(options):
        torch.testing.assert_close(own(x), plain, rtol=1e-5, atol=1e-5)


def test_a_single_value_for_each_channel_is_refused() -> None:
    norm, x = nn.BatchNorm2d(3), torch.zeros(1, 3, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        normalize_known(norm, x, torch.zeros(2, 3))
    assert norm.running_mean.eq(0).all()


@pytest.mark.parametrize("order", ORDERS)
def test_without_an_image_it_is_torchs(order: str, layers: Any) -> None:
    own, twin = layers(order, 4, 6)
    x = torch.zeros(0, 4, 3, 3)
    assert own(x).shape == twin(x).shape == (0, 6, 6, 6)
    for found, wanted in zip(own.buffers(), twin.buffers(), strict=True):
        assert torch.equal(found, wanted)


def test_the_state_is_that_of_torchs_layers(layers: Any, randn: Callable[..., Tensor]) -> None:
    own, twin = layers("after_relu", 4, 6)
    x = randn(2, 4, 3, 3)
    for layer in (own, twin):
        layer(x)
    state, plain = own.state_dict(), twin.state_dict()
    assert list(state) == list(plain)
    for name, value in state.items():
        assert value.dtype == plain[name].dtype
        torch.testing.assert_close(value, plain[name], rtol=1e-6, atol=1e-7)
    twin.load_state_dict(state)
    own.load_state_dict(plain)


@pytest.mark.parametrize("order", ORDERS)
def test_a_step_counts_one_batch(order: str, layers: Any, randn: Callable[..., Tensor]) -> None:
    own, _ = layers(order, 4, 6)
    norm, x = norm_of(own), randn(2, 4, 3, 3)
    for step in (1, 2):
        own(x)
        assert int(norm.num_batches_tracked) == step  # type: ignore[arg-type]
    before = norm.running_mean.clone()
    with uncounted(own) as counters:
        own(x)
        assert [int(counter) for counter in counters] == [2]
        torch._foreach_add_(counters, 1)  # as a replay does
    assert int(norm.num_batches_tracked) == 3  # type: ignore[arg-type]
    assert not torch.equal(norm.running_mean, before)  # type: ignore[arg-type]


@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("order", ORDERS)
def test_compiles_to_one_graph(order: str, narrow: bool, layers: Any, randn: Callable[..., Tensor]) -> None:
    own, _ = layers(order, 4, 6)
    twin = copy.deepcopy(own)
    # For any size, as the losses are compiled, and without the batches' counter, as a recorded decoder.
    torch.compiler.reset()
    compiled = torch.compile(own, backend="aot_eager", fullgraph=True, dynamic=True)
    for sizes in ((2, 4, 3, 5), (3, 4, 2, 7)):
        x, dy = randn(*sizes), randn(sizes[0], 6, 2 * sizes[2], 2 * sizes[3])
        found = []
        for layer, call in ((own, compiled), (twin, twin)):
            leaf = x.clone().requires_grad_()
            with uncounted(layer), torch.autocast("cpu", torch.bfloat16, enabled=narrow):
                y = call(leaf)
            gradients = torch.autograd.grad(y, [leaf, *layer.parameters()], dy.to(y.dtype))
            found.append([y, *gradients, *layer.buffers()])
        for one, other in zip(*found, strict=True):
            assert one.stride() == other.stride()
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
