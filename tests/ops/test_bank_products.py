"""Float32 products of the prototype bank as three of TF32: their error, beside exact products and one of TF32."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prior_fast import ops
from prior_fast.kernels._row_parts import LEAST_PROGRAMS, row_parts
from prior_fast.kernels.common.launch import recording
from tests.ops.bank_products import errors, kl, lookup, products, tf32_once

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")

# Beside "ieee" in the same test: its error plus one rounding of float32, this many times.
FACTOR = 3


def check(run: Callable[..., dict[str, Tensor]]) -> None:
    truth = run(torch.float64, "ieee", "reference")
    exact, split = (errors(run(torch.float32, precision, "triton"), truth) for precision in ("ieee", "tf32x3"))
    with products(tf32_once):
        once = errors(run(torch.float32, "tf32x3", "triton"), truth)
    for name, error in exact.items():
        bound = FACTOR * (error + 2.0**-24)
        assert split[name] <= bound, f"{name}: {split[name]}, with exact products {error}"
        # l1 adds up differences that hardly feel a rounding of the logits: its own gradients do.
        if not name.startswith("l1"):
            assert once[name] > bound and once[name] > 50 * split[name], f"{name}: {once[name]}, in three {split[name]}"
    assert sum(once.values()) > 100 * sum(split.values())


@pytest.mark.parametrize("tau", [0.9, 0.01])
def test_the_error_of_a_lookup_is_near_that_of_exact_products(tau: float) -> None:
    """Pairs of near-equal logits, which a small temperature sets apart."""
    check(lambda *how: lookup(tau, *how))


def test_the_error_of_the_divergence_is_near_that_of_exact_products() -> None:
    check(kl)


def test_rounding_to_tf32(rng: np.random.Generator) -> None:
    """Against rounding in float64: half away from zero, over all exponents; a carry; infinities, NaN and zeros."""
    bits = rng.integers(0, 2**32, 4096, dtype=np.uint64).astype(np.uint32)
    x = torch.from_numpy(bits.view(np.float32).copy())
    x = torch.cat([x[x.isfinite() & (x.abs() > 1e-30) & (x.abs() < 1e38)][:3000], torch.tensor([1 + 2.0**-11] * 2)])
    x[-1] = 2 - 2.0**-12
    mantissa, exponent = torch.frexp(x.double())
    wanted = torch.ldexp((mantissa.abs() * 2**11 + 0.5).floor() / 2**11 * mantissa.sign(), exponent).float()
    assert torch.equal(_round(x), wanted)
    assert wanted[-2] == 1 + 2.0**-10 and wanted[-1] == 2
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan])
    torch.testing.assert_close(_round(special), special, rtol=0, atol=0, equal_nan=True)


def _round(x: Tensor) -> Tensor:
    from tests.ops.bank_products import round_kernel

    out = torch.empty_like(x)
    round_kernel[(1,)](x, out, len(x), BLOCK=4096)
    return out


@pytest.mark.parametrize(("n", "k", "d"), [(0, 4, 3), (1, 1, 1), (37, 70, 33)])
def test_any_shape(n: int, k: int, d: int, randn: Callable[..., Tensor]) -> None:
    x, y, bank = (t.detach().float().requires_grad_() for t in (randn(n, d), randn(n, d), randn(k, d)))
    runs = []
    for how in ({"precision": "tf32x3", "backend": "triton"}, {"backend": "reference"}):
        found = ops.prototype_lookup(x, bank, 0.5, seed=1, **how)
        loss = found.output.square().sum() + found.l1 + ops.prototype_kl(x, y, bank, **how)
        runs.append([loss, *torch.autograd.grad(loss, (x, y, bank))])
    for one, other in zip(*runs, strict=True):
        size = other.abs().max().item() if other.numel() else 0
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5 * size + 1e-7)


def test_infinite_rows_stay_infinite_logits() -> None:
    """The low part of an infinite operand is inf - inf, which must not become the logit."""
    x, bank = torch.tensor([[torch.inf, 1.0], [1.0, 2.0]]), torch.tensor([[1.0, 1.0], [-1.0, 3.0]])
    index = ops.prototype_lookup(x, bank, 1.0, precision="tf32x3", backend="triton").index
    assert index.tolist() == [0, 1]


def test_other_dtypes_are_compiled_once_for_both_precisions() -> None:
    from prior_fast.kernels.prototype_lookup import prototype_lookup_fwd

    x, bank, tau = (torch.empty(shape, device="meta", dtype=torch.bfloat16) for shape in ((50, 768), (512, 768), ()))
    with recording() as calls:
        for precision in ("ieee", "tf32x3"):
            prototype_lookup_fwd(x, bank, tau, None, None, 0, precision)
    assert [call.constants for call in calls[:3]] == [call.constants for call in calls[3:]]


@pytest.mark.parametrize("precision", ["ieee", "tf32x3"])
def test_the_gradient_of_the_bank_fills_a_gpu(precision: str) -> None:
    """PRIOR's batch of 1,034 sentences: two programs for each of 132 multiprocessors, and one launch more."""
    from prior_fast.kernels.prototype_kl import prototype_kl_bwd
    from prior_fast.kernels.prototype_lookup import prototype_lookup_bwd

    def empty(*shape: int) -> Any:
        return torch.empty(shape, device="meta")

    x, bank, logits, stats = empty(1034, 768), empty(512, 768), empty(2, 1034, 512), empty(5, 1034)
    with recording() as kl_calls:
        prototype_kl_bwd(empty(), x, x, bank, logits, stats, True, True, precision)
    with recording() as lookup_calls:
        prototype_lookup_bwd(x, empty(), x, bank, empty(), logits[0], x, stats[:2], True, precision)
    assert [len(kl_calls), len(lookup_calls)] == [3, 4]
    for calls in (kl_calls, lookup_calls):
        assert np.prod(calls[-2].grid) >= LEAST_PROGRAMS


def test_parts_of_rows() -> None:
    assert [row_parts(rows, 96) for rows in (0, 50, 255, 256, 1034, 8802)] == [1, 1, 1, 2, 3, 3]
    assert row_parts(10**6, 1) == LEAST_PROGRAMS and row_parts(10**6, 1000) == 1


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 2.0**-6)])
def test_the_gradient_of_the_bank_from_parts(dtype: torch.dtype, bound: float, randn: Callable[..., Tensor]) -> None:
    """Two parts, the second of which ends within a piece; twice, with equal bits.

    In bfloat16 the bound has room for Triton's interpreter, which cuts to bfloat16 where a GPU rounds.
    """
    rows = 300
    x, y, bank = (t.detach().to(dtype).requires_grad_() for t in (randn(rows, 20), randn(rows, 20), randn(18, 20)))

    def gradient(backend: str, *inputs: Tensor) -> Tensor:
        output, _, l1 = ops.prototype_lookup(*inputs[::2], 0.5, backend=backend)
        loss = output.float().square().sum() / rows + l1 + ops.prototype_kl(*inputs, backend=backend)
        return torch.autograd.grad(loss, inputs[2])[0]

    found = gradient("triton", x, y, bank)
    truth = gradient("reference", *(t.detach().double().requires_grad_() for t in (x, y, bank)))
    assert (found.double() - truth).norm() <= bound * truth.norm()
    assert torch.equal(found, gradient("triton", x, y, bank))


def test_passes_opcheck(randn: Callable[..., Tensor]) -> None:
    x, y, bank = (t.detach().float().requires_grad_() for t in (randn(5, 3), randn(5, 3), randn(7, 3)))
    torch.library.opcheck(torch.ops.prior_fast.prototype_kl.default, (x, y, bank, "tf32x3"))
    inputs = (x, bank, torch.tensor(0.5), None, None, 0, "tf32x3")
    torch.library.opcheck(torch.ops.prior_fast.prototype_lookup.default, inputs)


def test_wrong_precision() -> None:
    x = torch.zeros(3, 4)
    for call in (lambda **how: ops.prototype_lookup(x, x, 1.0, **how), lambda **how: ops.prototype_kl(x, x, x, **how)):
        with pytest.raises(ValueError, match="precision is 'tf32', wanted one of ieee, tf32x3"):
            call(precision="tf32")
