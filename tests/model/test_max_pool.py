"""The max-pooling of compiled steps on GPUs against PyTorch's own: the same bits, of outputs and gradients."""

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
