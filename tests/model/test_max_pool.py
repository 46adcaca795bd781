"""The max-pooling of compiled steps on GPUs against PyTorch's own: the same bits, of outputs and gradients."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from prior_fast.model.max_pool import HalvingMaxPool2d, gathered_max_pool


def both(x: torch.Tensor, pool) -> list[torch.Tensor]:
    maxima = pool(x)
    generator = torch.Generator().manual_seed(maxima.numel())
    # Whole numbers, so that sums do not depend on their order.
    dmaxima = torch.randint(-8, 9, maxima.shape, generator=generator).to(x.dtype)
    return [maxima, *torch.autograd.grad(maxima, x, dmaxima)]


def plain(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 7, 7), (2, 4, 8, 6), (1, 2, 1, 9), (3, 5, 2, 1), (2, 8, 8, 13)])
def test_equals_pytorchs(shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype) -> None:
    torch.manual_seed(sum(shape))
    x = torch.randn(shape).relu().to(dtype).contiguous(memory_format=layout).requires_grad_()  # with ties at 0
    for found, wanted in zip(both(x, gathered_max_pool), both(x, plain), strict=True):
        assert torch.equal(found, wanted)


def test_of_a_tie_the_first_gets_the_gradient() -> None:
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    for found, wanted in zip(both(x, gathered_max_pool), both(x, plain), strict=True):
        assert torch.equal(found, wanted)


def test_compiles_to_one_graph() -> None:
    x = torch.randn(2, 3, 9, 8, requires_grad=True)
    compiled = torch.compile(gathered_max_pool, fullgraph=True)
    for found, wanted in zip(both(x, compiled), both(x, plain), strict=True):
        assert torch.equal(found, wanted)


def test_outside_of_the_compiler_it_is_pytorchs() -> None:
    x = torch.randn(2, 3, 9, 8, requires_grad=True)
    assert HalvingMaxPool2d()(x).grad_fn.name() == plain(x).grad_fn.name()


# A compiled function with a custom gradient, scaled by `factor`, kept in the compiler's cache as in training.
KEPT = """
import sys
import torch
from torch._dynamo.utils import counters
from own import Scaled

x = torch.arange(-2.0, 4.0, requires_grad=True)
compiled = torch.compile(lambda x: Scaled.apply(x).sum(), dynamic=True, backend="inductor")
with torch._functorch.config.patch(autograd_cache_allow_custom_autograd_functions=True):
    compiled(x).backward()
counted = counters["aot_autograd"]
print(counted["autograd_cache_hit"], counted["autograd_cache_bypass"], *x.grad.tolist())
"""
OWN = """
import torch

class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x > 0)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0] * {factor}
"""


@pytest.mark.slow
def test_the_compilers_cache_tells_gradients_of_ones_own_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the cache could not hold compiled stages safely: another gradient would get the same entry."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "kept.py").write_text(KEPT)
    seen = []
    for factor in (3, 5, 3):
        (tmp_path / "own.py").write_text(OWN.format(factor=factor))
        done = subprocess.run([sys.executable, str(tmp_path / "kept.py")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        seen.append([float(word) for word in done.stdout.split()])
    assert [(hit, bypassed) for hit, bypassed, *_ in seen] == [(0, 0), (0, 0), (1, 0)]
    assert [gradient for _, _, *gradient in seen] == [[0, 0, 0, *[factor] * 3] for factor in (3, 5, 3)]
