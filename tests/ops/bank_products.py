"""The losses of the prototype bank in several precisions of their products, for the tests of these precisions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast import ops
from prior_fast.kernels import _dot

ROWS, PROTOTYPES, WIDTH = 32, 34, 768


@triton.jit
def tf32_once(a, b, total):
    """total + a b, the operands rounded to TF32: what `_tf32x3` computes without its low parts."""
    return total + tl.dot(_dot.round_to_tf32(a), _dot.round_to_tf32(b), input_precision="ieee")


@triton.jit
def bfloat16_logits(a, b, total):
    """total + a b, the operands rounded to bfloat16, and the first-order correction, in float32: its best case."""
    high_a, high_b = a.to(tl.bfloat16).to(tl.float32), b.to(tl.bfloat16).to(tl.float32)
    rest = tl.dot(a - high_a, high_b, tl.dot(high_a, b - high_b, input_precision="ieee"), input_precision="ieee")
    return total + tl.dot(high_a, high_b, rest, input_precision="ieee")


@triton.jit
def round_kernel(x_ptr, out_ptr, N, BLOCK: tl.constexpr):
    """out = x rounded to TF32."""
    i = tl.arange(0, BLOCK)
    tl.store(out_ptr + i, _dot.round_to_tf32(tl.load(x_ptr + i, mask=i < N, other=0.0)), mask=i < N)


@contextmanager
def products(function: Any) -> Iterator[None]:
    """A block in which "tf32x3" is replaced by `function` in Triton's interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_dot, "_tf32x3", function)
        yield


def trained(rows: int, prototypes: int, width: int) -> tuple[Tensor, Tensor]:
    """Sentences of length sqrt(width), and prototypes beside them: pairs of near-equal logits, float64."""
    generator = torch.Generator().manual_seed(rows)
    x = torch.nn.functional.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64)) * width**0.5
    bank = torch.randn(prototypes, width, generator=generator, dtype=torch.float64)
    # Prototypes 2 i and 2 i + 1 differ by 1e-4: their logits with a row are tied but for some 1e-3.
    bank[1::2] = bank[::2] + 1e-4 * torch.randn(bank[::2].shape, generator=generator, dtype=torch.float64)
    x[: prototypes // 2] = 0.7 * x[: prototypes // 2] + 0.7 * bank[::2]
    norm = torch.nn.functional.normalize
    return norm(x) * width**0.5, norm(bank)


def lookup(tau: float, dtype: torch.dtype, precision: str, backend: str) -> dict[str, Tensor]:
    """The output, l1 and their gradients, float64."""
    x, bank, weights = _inputs(dtype)
    output, _, l1 = ops.prototype_lookup(x, bank, tau, precision=precision, backend=backend)
    dx, dbank = torch.autograd.grad((output * weights).sum() / len(x), (x, bank), retain_graph=True)
    l1_dx, l1_dbank = torch.autograd.grad(l1, (x, bank))
    found = {"output": output, "dx": dx, "dbank": dbank, "l1": l1, "l1 dx": l1_dx, "l1 dbank": l1_dbank}
    return {name: t.detach().double() for name, t in found.items()}


def kl(dtype: torch.dtype, precision: str, backend: str) -> dict[str, Tensor]:
    """The divergence and its gradients, float64."""
    x, bank, weights = _inputs(dtype)
    prediction = (x + 0.1 * weights).detach().requires_grad_()
    divergence = ops.prototype_kl(x, prediction, bank, precision=precision, backend=backend)
    dtarget, dprediction, dbank = torch.autograd.grad(divergence, (x, prediction, bank))
    found = {"kl": divergence, "dtarget": dtarget, "dprediction": dprediction, "dbank": dbank}
    return {name: t.detach().double() for name, t in found.items()}


def _inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Sentences, the bank, and weights of the output, the same float32 numbers in any dtype."""
    x, bank = (t.float().to(dtype).requires_grad_() for t in trained(ROWS, PROTOTYPES, WIDTH))
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).to(dtype)
    return x, bank, weights


def errors(found: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """The relative error of each result in the Euclidean norm."""
    return {name: ((found[name] - true).norm() / true.norm()).item() for name, true in truth.items()}
