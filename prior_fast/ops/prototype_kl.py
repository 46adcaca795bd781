"""KL divergence between the prototype distributions of a report's sentences and of those generated for it."""

from typing import Any

import torch
from torch import Tensor

from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.checks import check_tensors
from prior_fast.ops.common.precision import accumulation_dtype, full_precision
from prior_fast.ops.common.triton import with_triton
from prior_fast.ops.prototype_lookup import check_products

__all__ = ["prototype_kl"]


def prototype_kl_reference(target: Tensor, prediction: Tensor, prototypes: Tensor) -> Tensor:
    """`prototype_kl` in plain PyTorch."""
    dtype = accumulation_dtype(target)
    with full_precision(target):
        bank = prototypes.to(dtype).T
        log_target = torch.log_softmax(target.to(dtype) @ bank, dim=-1)
        log_prediction = torch.log_softmax(prediction.to(dtype) @ bank, dim=-1)
        return (log_target.exp() * (log_target - log_prediction)).sum(dim=1).sum() / max(target.shape[0], 1)


@torch.library.custom_op("prior_fast::prototype_kl", mutates_args=())
def _prototype_kl(
    target: Tensor, prediction: Tensor, prototypes: Tensor, precision: str = "ieee"
) -> tuple[Tensor, Tensor, Tensor]:
    """The divergence, and for the backward pass: logits [2, N, K], stats [5, N]."""
    from prior_fast.kernels.prototype_kl import prototype_kl_fwd

    return prototype_kl_fwd(target.contiguous(), prediction.contiguous(), prototypes.contiguous(), precision)


@_prototype_kl.register_fake
def _(target: Tensor, prediction: Tensor, prototypes: Tensor, precision: str = "ieee") -> tuple[Tensor, Tensor, Tensor]:
    rows = target.shape[0]
    shapes = ((), (2, rows, prototypes.shape[0]), (5, rows))
    kl, logits, stats = (target.new_empty(shape, dtype=torch.float32) for shape in shapes)
    return kl, logits, stats


@torch.library.custom_op("prior_fast::prototype_kl_backward", mutates_args=())
def _prototype_kl_backward(
    dkl: Tensor,
    target: Tensor,
    prediction: Tensor,
    prototypes: Tensor,
    logits: Tensor,
    stats: Tensor,
    with_rows: bool,
    with_bank: bool,
    precision: str = "ieee",
) -> tuple[Tensor, Tensor, Tensor]:
    from prior_fast.kernels.prototype_kl import prototype_kl_bwd

    inputs = (target.contiguous(), prediction.contiguous(), prototypes.contiguous())
    return prototype_kl_bwd(dkl, *inputs, logits, stats, with_rows, with_bank, precision)


@_prototype_kl_backward.register_fake
def _(
    dkl: Tensor,
    target: Tensor,
    prediction: Tensor,
    prototypes: Tensor,
    logits: Tensor,
    stats: Tensor,
    with_rows: bool,
    with_bank: bool,
    precision: str = "ieee",
) -> tuple[Tensor, Tensor, Tensor]:
    dtarget, dprediction = (target.new_empty(target.shape if with_rows else 0) for _ in range(2))
    return dtarget, dprediction, target.new_empty(prototypes.shape if with_bank else 0)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.precision = inputs
    _, *saved = output
    ctx.save_for_backward(*tensors, *saved)
    ctx.mark_non_differentiable(*saved)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dkl: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if dkl is None:
        return None, None, None, None
    # The dispatcher leaves out a precision that is the default.
    needs = ctx.needs_input_grad[:3]
    with_rows, with_bank = needs[0] or needs[1], needs[2]
    gradients = _prototype_kl_backward(dkl, *ctx.saved_tensors, with_rows, with_bank, ctx.precision)
    return *(g if needed else None for g, needed in zip(gradients, needs, strict=True)), None


_prototype_kl.register_autograd(_backward, setup_context=_setup_context)


def prototype_kl(
    target: Tensor,
    prediction: Tensor,
    prototypes: Tensor,
    *,
    precision: str = "ieee",
    backend: str | None = None,
) -> Tensor:
    """KL(softmax(target E^T) || softmax(prediction E^T)), the mean over rows; no temperature, no noise.

    Args:
        target: [N, D] embeddings that set the target distributions; they get a gradient too.
        prediction: [N, D] embeddings of the dtype of `target`.
        prototypes: [K, D] the bank E, K >= 1, of the dtype of `target`.
        precision: of the kernels' products of float32, "ieee" or "tf32x3", as in `prototype_lookup`.
        backend: see `prior_fast.ops.common.backend.resolve_backend`.

    Returns:
        [] float32 (float64 for float64), 0 when N is 0. Differentiable in all three tensors.

    Raises:
        ValueError: a shape, dtype, device, precision or backend that does not fit; the message names it.
    """
    check_tensors(target=(target, "N D"), prediction=(prediction, "N D"), prototypes=(prototypes, "K D"))
    if prototypes.shape[0] == 0:
        raise ValueError(f"prototypes has shape {list(prototypes.shape)}, wanted at least one row")
    check_products(precision)
    # Forward and backward at PRIOR's shape on an H200: in float32 the kernels take 325 us and the reference, with
    # cuBLAS, 248; in bfloat16 they take 199 and 273 (bench/results/nvidia-h200/kernels.json).
    if resolve_backend("prototype_kl", backend, with_triton(target, for_float32=False)) == "triton":
        return _prototype_kl(target, prediction, prototypes, precision)[0]
    return prototype_kl_reference(target, prediction, prototypes)
