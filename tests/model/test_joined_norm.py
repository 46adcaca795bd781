"""Batch normalization joined over ranks equals torch's on the joined rows, in float64, and its gradient too."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed import FileStore, ProcessGroupGloo
from torch.nn import functional as F

from prior_fast import extension
from prior_fast.model import joined_norm as module
from prior_fast.model.batch_norm import JoinedBatchNorm2d, JoinedRowNorm
from prior_fast.model.joined_norm import all_have_kernels
from prior_fast.model.norm_kernels import takes
from prior_fast.model.projection import RowNorm

needs_library = pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="the cpu library is not built")
KERNELS = [pytest.param(True, marks=needs_library), False]
OPS = torch.ops.prior_fast


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[ProcessGroupGloo]:
    """A group of this process alone, torch's default group."""
    store = FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield torch.distributed.group.WORLD
    torch.distributed.destroy_process_group()


@pytest.fixture
def rows(rng: np.random.Generator) -> Callable[..., Tensor]:
    """`rows(n, channels, dtype)` -> rows whose columns have different means and spreads."""

    def make(count: int, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
        spread, mean = rng.uniform(0.5, 3, channels), rng.normal(size=channels) * 4
        return torch.tensor(rng.normal(size=(count, channels)) * spread + mean, dtype=dtype)

    return make


def expected(x: Tensor, dy: Tensor, weight: Tensor | None, bias: Tensor | None) -> list[Tensor]:
    """y, mean, unbiased variance, dx and, where there are any, the gradients of weight and bias, in float64."""
    x = x.double().requires_grad_()
    parameters = [None if p is None else p.detach().double().requires_grad_() for p in (weight, bias)]
    mean, variance = torch.zeros(2, x.shape[1], dtype=torch.float64)
    y = F.batch_norm(x, mean, variance, *parameters, training=True, momentum=1.0)
    leaves = [x, *(p for p in parameters if p is not None)]
    return [y.detach(), mean, variance, *torch.autograd.grad(y, leaves, dy.double())]


def error(found: Tensor, wanted: Tensor) -> float:
    """The greatest error as a share of the greatest value."""
    assert found.shape == wanted.shape and found.isfinite().all()
    return float((found.detach().double() - wanted).abs().max() / wanted.abs().max())


# One row more or less than whole blocks and parts; more channels than a block has columns; a single channel.
@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("count", "channels"), [(2, 1), (7, 3), (33, 700), (257, 256), (1025, 8), (20011, 17), (40000, 64), (600001, 1)]
)
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_kernels_equal_torch(
    count: int, channels: int, dtype: torch.dtype, ranks: int, rows: Callable[..., Tensor]
) -> None:
    x, dy = rows(count, channels, dtype), rows(count, channels, dtype)
    weight, bias = rows(2, channels)
    # The second rank has a single row, the third, between them, has none.
    parts = {1: [count], 2: [count - 1, 1], 3: [count - 1, 0, 1]}[ranks]
    xs, dys = x.split(parts), dy.split(parts)
    moments = sum(OPS.norm_moments(part, channels, rank, ranks) for rank, part in enumerate(xs))
    assert moments[:, 0].tolist() == parts
    scales = OPS.norm_scales(moments, weight, bias, 1e-5)
    sums = [OPS.norm_gradient_sums(dy, part, scales) for dy, part in zip(dys, xs, strict=True)]
    total = sum(sums)
    found = {
        "y": torch.cat([OPS.norm_apply(part, scales) for part in xs]),
        "mean": scales[0],
        "variance": scales[1],
        "dx": torch.cat([OPS.norm_gradient(dy, part, scales, total, moments) for dy, part in zip(dys, xs)]),
        "dweight": total[1],
        "dbias": total[0],
    }
    assert found["y"].dtype == found["dx"].dtype == dtype
    wanted = dict(zip(found, expected(x, dy, weight, bias), strict=True))
    # y and dx are rounded to their dtype; the mean is subtracted in float32, and is several deviations.
    rounding = 2.0**-8 if dtype == torch.bfloat16 else 1e-6
    if count > 2:  # of two rows dx is zero, up to eps
        assert error(found["dx"], wanted["dx"]) < 4 * rounding
        # Its terms nearly cancel: their rounding is a share of what they would add up to with one sign.
        terms = (dy.double() * (x.double() - wanted["mean"])).abs().sum(0) / wanted["variance"].sqrt()
        assert ((found["dweight"] - wanted["dweight"]).abs() < 4e-6 * terms).all()
    assert error(found["y"], wanted["y"]) < 4 * rounding
    for name in ("mean", "variance", "dbias"):
        assert error(found[name], wanted[name]) < 2e-6, name


@needs_library
@pytest.mark.parametrize(("mean", "first"), [(1000.0, 1000.0), (0.0, 1e4), (0.0, 0.0)])
def test_many_rows_keep_their_digits(mean: float, first: float, rng: np.random.Generator) -> None:
    """Six million rows far from zero, or after a row that is far from all others; torch's own loses digits."""
    x = torch.tensor(rng.normal(size=(6_000_001, 1)) + mean, dtype=torch.float32)
    x[0] = first
    scales = OPS.norm_scales(OPS.norm_moments(x, x.shape[1], 0, 1), None, None, 1e-5)
    assert float(scales[0]) == pytest.approx(float(x.double().mean()), rel=2e-7, abs=1e-9)
    assert float(scales[1]) == pytest.approx(float(x.double().var()), rel=1e-6)


@needs_library
def test_rounding_does_not_depend_on_the_threads(rows: Callable[..., Tensor]) -> None:
    x, dy = rows(50_001, 24), rows(50_001, 24)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            moments = OPS.norm_moments(x, x.shape[1], 0, 1)
            scales = OPS.norm_scales(moments, None, None, 1e-5)
            sums = OPS.norm_gradient_sums(dy, x, scales)
            found.append((moments, sums, OPS.norm_apply(x, scales), OPS.norm_gradient(dy, x, scales, sums, moments)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@needs_library
def test_what_is_not_finite_stays_so(rows: Callable[..., Tensor]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = rows(300, 2, dtype)
        x[17, 0] = torch.nan
        scales = OPS.norm_scales(OPS.norm_moments(x, x.shape[1], 0, 1), None, None, 1e-5)
        y = OPS.norm_apply(x, scales)
        assert y[:, 0].isnan().all() and y[:, 1].isfinite().all()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("kind", ["image", "rows", "strided rows", "plain image"])
def test_layers_equal_torch(
    kernels: bool, affine: bool, tracked: bool, kind: str, alone: ProcessGroupGloo, rows: Callable[..., Tensor]
) -> None:
    channels = 6
    flat, dy = rows(3 * 4 * 5, channels), rows(3 * 4 * 5, channels)
    layers = {"image": JoinedBatchNorm2d, "plain image": JoinedBatchNorm2d}
    layer = layers.get(kind, JoinedRowNorm)(channels, affine=affine)
    layer.group, layer.kernels = alone, kernels
    weight, bias = layer.weight, layer.bias
    if affine:
        with torch.no_grad():
            weight.copy_(rows(1, channels)[0])
            bias.copy_(rows(1, channels)[0])
    x, dx = flat.view(3, 4, 5, channels), dy.view(3, 4, 5, channels)
    if "image" in kind:
        x, dx = x.permute(0, 3, 1, 2), dx.permute(0, 3, 1, 2)
    if kind == "strided rows":
        x = torch.cat([x, x], dim=-1)[..., :channels]
    if kind == "plain image":
        x = x.contiguous()
    x = x.detach().requires_grad_()
    y = layer(x, tracked=tracked)
    y.backward(dx)
    assert y.shape == x.shape == x.grad.shape
    assert kind == "strided rows" or y.stride() == x.stride()
    found = [y, x.grad]
    if "image" in kind:
        found = [each.permute(0, 2, 3, 1) for each in found]
    of_y, mean, variance, of_x, *of_parameters = expected(flat, dy, weight, bias)
    assert error(found[0].reshape(-1, channels), of_y) < 3e-6
    assert error(found[1].reshape(-1, channels), of_x) < 2e-5
    for parameter, wanted in zip((weight, bias), of_parameters):
        assert error(parameter.grad, wanted) < 2e-5
    assert int(layer.num_batches_tracked) == tracked
    if tracked:
        assert error(layer.running_mean, 0.1 * mean) < 1e-6
        assert error(layer.running_var, 0.9 + 0.1 * variance) < 1e-6
    else:
        assert torch.equal(layer.running_mean, torch.zeros(channels))
    # In evaluation mode it is torch's own layer.
    layer.eval()
    plain = (nn.BatchNorm2d if "image" in kind else RowNorm)(channels, affine=affine).eval()
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), plain(x))


def test_kernels_serve_rows_of_two_dtypes(rows: Callable[..., Tensor]) -> None:
    x, weight = rows(4, 3), torch.ones(3)
    assert takes(x, (weight, None)) and takes(x.bfloat16(), (None, None))
    assert not takes(x.double(), (None, None)) and not takes(x.half(), (None, None))
    assert not takes(x.t(), (None, None)) and not takes(x, (weight.double(), None))


def test_ranks_without_a_library_agree_on_torch(alone: ProcessGroupGloo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all_have_kernels(alone) is (extension.unavailable("cpu") is None)
    monkeypatch.setattr(module.extension, "unavailable", lambda kind: "not built")
    assert not all_have_kernels(alone)
