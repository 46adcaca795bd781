"""Lookup of sentences in the sentence-wise prototype memory bank, by a Gumbel-softmax."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.checks import (
    check_device,
    check_dtype,
    check_is_tensor,
    check_length,
    check_scalar,
    check_seed,
    check_shape,
    check_tensors,
    values_are_checked,
)
from prior_fast.ops.common.philox import gumbel as gumbel_noise
from prior_fast.ops.common.philox import seed_tensor
from prior_fast.ops.common.precision import accumulation_dtype, full_precision
from prior_fast.ops.common.triton import with_triton

__all__ = ["PrototypeLookup", "prototype_lookup"]

# How the bank's kernels multiply float32, as Triton names it.
PRODUCTS = ("ieee", "tf32x3")


def check_products(precision: str) -> None:
    """Raise ValueError unless the bank's kernels have products of this precision."""
    if precision not in PRODUCTS:
        raise ValueError(f"precision is {precision!r}, wanted one of {', '.join(PRODUCTS)}")


class PrototypeLookup(NamedTuple):
    """The result of `prototype_lookup`."""

    output: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which is not used on a lookup
    l1: Tensor


def prototype_lookup_reference(
    x: Tensor, prototypes: Tensor, tau: float | Tensor, *, gumbel: Tensor | None = None
) -> PrototypeLookup:
    """`prototype_lookup` in plain PyTorch; noise from a seed is made by `prior_fast.ops.common.philox.gumbel`."""
    dtype = accumulation_dtype(x)
    temperature = tau.detach().to(dtype) if isinstance(tau, Tensor) else tau
    with full_precision(x):
        rows, bank = x.to(dtype), prototypes.to(dtype)
        logits = rows @ bank.T
        if gumbel is not None:
            logits = logits + gumbel.detach().to(dtype)
        output = torch.softmax(logits / temperature, dim=-1) @ bank
        l1 = (output - rows).abs().sum(dim=1).sum() / max(x.numel(), 1)
    return PrototypeLookup(output.to(x.dtype), logits.argmax(dim=-1), l1)


@torch.library.custom_op("prior_fast::prototype_lookup", mutates_args=())
def _prototype_lookup(
    x: Tensor,
    prototypes: Tensor,
    tau: Tensor,
    gumbel: Tensor | None,
    seed: Tensor | None,
    first_row: int,
    precision: str = "ieee",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """output, index, l1, and for the backward pass: noisy logits [N, K], signs [N, D], stats [2, N]."""
    from prior_fast.kernels.prototype_lookup import prototype_lookup_fwd

    noise = None if gumbel is None else gumbel.contiguous()
    return prototype_lookup_fwd(x.contiguous(), prototypes.contiguous(), tau, noise, seed, first_row, precision)


@_prototype_lookup.register_fake
def _(
    x: Tensor,
    prototypes: Tensor,
    tau: Tensor,
    gumbel: Tensor | None,
    seed: Tensor | None,
    first_row: int,
    precision: str = "ieee",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows = x.shape[0]
    return (
        x.new_empty(x.shape),
        x.new_empty(rows, dtype=torch.int64),
        x.new_empty((), dtype=torch.float32),
        x.new_empty(rows, prototypes.shape[0], dtype=torch.float32),
        x.new_empty(x.shape, dtype=torch.int8),
        x.new_empty(2, rows, dtype=torch.float32),
    )


@torch.library.custom_op("prior_fast::prototype_lookup_backward", mutates_args=())
def _prototype_lookup_backward(
    doutput: Tensor | None,
    dl1: Tensor | None,
    x: Tensor,
    prototypes: Tensor,
    tau: Tensor,
    logits: Tensor,
    sign: Tensor,
    stats: Tensor,
    with_bank: bool,
    precision: str = "ieee",
) -> tuple[Tensor, Tensor]:
    from prior_fast.kernels.prototype_lookup import prototype_lookup_bwd

    gradient = None if doutput is None else doutput.contiguous()
    saved = (x.contiguous(), prototypes.contiguous(), tau, logits, sign, stats)
    return prototype_lookup_bwd(gradient, dl1, *saved, with_bank, precision)


@_prototype_lookup_backward.register_fake
def _(
    doutput: Tensor | None,
    dl1: Tensor | None,
    x: Tensor,
    prototypes: Tensor,
    tau: Tensor,
    logits: Tensor,
    sign: Tensor,
    stats: Tensor,
    with_bank: bool,
    precision: str = "ieee",
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(prototypes.shape if with_bank else 0)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, prototypes, tau, _, _, _, ctx.precision = inputs
    _, index, _, *saved = output
    ctx.save_for_backward(x, prototypes, tau, *saved)
    ctx.mark_non_differentiable(index, *saved)
    # The gradient of an unused output is then None, and its part of the backward pass is skipped.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, doutput: Tensor | None, _: None, dl1: Tensor | None, *__: None) -> tuple[Tensor | None, ...]:
    if doutput is None and dl1 is None:
        return (None,) * 7
    with_bank: bool = ctx.needs_input_grad[1]
    dx, dprototypes = _prototype_lookup_backward(doutput, dl1, *ctx.saved_tensors, with_bank, ctx.precision)
    return dx, dprototypes if with_bank else None, None, None, None, None, None


_prototype_lookup.register_autograd(_backward, setup_context=_setup_context)


def prototype_lookup(
    x: Tensor,
    prototypes: Tensor,
    tau: float | Tensor,
    *,
    gumbel: Tensor | None = None,
    seed: int | Tensor | None = None,
    first_row: int = 0,
    precision: str = "ieee",
    backend: str | None = None,
) -> PrototypeLookup:
    """`W = softmax((x E^T + g) / tau)`, `output = W E`, `index = argmax W`, `l1 = mean |output - x|`.

    The bank of prototypes E and the annealed temperature are from section 2.3 of the supplement. The relaxation is from
    Jang et al., "Categorical reparameterization with Gumbel-softmax" (ICLR 2017), equation 2. Raw inner products as
    logits, the soft mixture and l1 are PRIOR's released code.

    Args:
        x: [N, D] sentence embeddings.
        prototypes: [K, D] the bank E, K >= 1, of the dtype of `x`.
        tau: temperature > 0, a number or a tensor without dimensions; it gets no gradient.
        gumbel: [N, K] the noise g, of the dtype of `x` or float32; it gets no gradient.
        seed: generates the noise g inside the op: row n gets the numbers of row first_row + n, by the contract of
            `prior_fast.ops.common.philox`. An int64 value: an int, or a tensor of one element on the device of `x`.
            Under torch.compile pass a tensor, since a new int may cause a recompilation.
        first_row: index of the first row of `x` in the batch joined over all ranks.
        precision: how the kernels multiply float32: "ieee" exactly, or "tf32x3" on tensor cores, as three products of
            TF32 whose error is near float32's. The reference multiplies exactly in either case, and in float32 it
            serves by default: ask for backend="triton" too.
        backend: see `prior_fast.ops.common.backend.resolve_backend`.

    Without `gumbel` and `seed` there is no noise, as in evaluation.

    Returns:
        output [N, D] of the dtype of `x`; index [N] int64 of the greatest noisy logit; l1 [], float32 (float64 for
        float64), with gradients to output and x, 0 when N is 0. Output and l1 are differentiable in x and prototypes.

    Raises:
        ValueError: a shape, dtype, device, temperature, seed, precision or backend that does not fit, or both `gumbel`
            and `seed`.
    """
    check_tensors(x=(x, "N D"), prototypes=(prototypes, "K D"))
    if prototypes.shape[0] == 0:
        raise ValueError(f"prototypes has shape {list(prototypes.shape)}, wanted at least one row")
    _check_tau(tau, x)
    _check_noise(x, prototypes, gumbel, seed, first_row)
    check_products(precision)
    # Forward and backward at PRIOR's shape on an H200: in float32 the kernels take 459 us and the reference, with
    # cuBLAS, 284; in bfloat16 they take 169 and 308 (bench/results/nvidia-h200/kernels.json).
    if resolve_backend("prototype_lookup", backend, with_triton(x, for_float32=False)) == "triton":
        return _on_triton(x, prototypes, tau, gumbel, seed, first_row, precision)
    if seed is not None:
        key = seed.reshape(()) if isinstance(seed, Tensor) else seed
        gumbel = gumbel_noise(key, x.shape[0], prototypes.shape[0], first_row, x.device, accumulation_dtype(x))
    return prototype_lookup_reference(x, prototypes, tau, gumbel=gumbel)


def _on_triton(
    x: Tensor,
    prototypes: Tensor,
    tau: float | Tensor,
    gumbel: Tensor | None,
    seed: int | Tensor | None,
    first_row: int,
    precision: str,
) -> PrototypeLookup:
    # torch.full fills on the device; torch.tensor would copy from the host and wait.
    if not isinstance(tau, Tensor):
        tau = torch.full((), tau, dtype=torch.float32, device=x.device)
    seed = None if seed is None else seed_tensor(seed, x.device)
    noise = None if gumbel is None else gumbel.detach()
    output, index, l1, *_ = _prototype_lookup(x, prototypes, tau.detach(), noise, seed, first_row, precision)
    return PrototypeLookup(output, index, l1)


def _check_tau(tau: float | Tensor, x: Tensor) -> None:
    check_scalar("tau", tau, "x", x)
    if isinstance(tau, Tensor) and not values_are_checked(tau):
        return
    value = float(tau.detach()) if isinstance(tau, Tensor) else float(tau)
    if not value > 0:
        raise ValueError(f"tau is {value}, wanted more than 0")


def _check_noise(
    x: Tensor, prototypes: Tensor, gumbel: Tensor | None, seed: int | Tensor | None, first_row: int
) -> None:
    check_length("first_row", first_row)
    if gumbel is not None and seed is not None:
        raise ValueError("gumbel and seed are both given, wanted at most one of them")
    if gumbel is not None:
        check_is_tensor("gumbel", gumbel, "N K")
        check_dtype("gumbel", gumbel, (torch.float32,) if x.dtype == torch.float32 else (x.dtype, torch.float32))
        check_shape("gumbel", gumbel, ["N", "K"], {"N": (x.shape[0], "x"), "K": (prototypes.shape[0], "prototypes")})
        check_device("gumbel", gumbel, "x", x)
    check_seed(seed, "x", x)
