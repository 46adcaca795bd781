"""The divergence between the prototype distributions of the sentences of a report and of those generated for it."""

import torch
from torch import Tensor

from prior_fast.ops._backend import resolve_backend
from prior_fast.ops._checks import check_tensors
from prior_fast.ops._precision import accumulation_dtype, full_precision

__all__ = ["prototype_kl"]


def prototype_kl_reference(target: Tensor, prediction: Tensor, prototypes: Tensor) -> Tensor:
    """`prototype_kl` in plain PyTorch."""
    dtype = accumulation_dtype(target)
    with full_precision(target):
        bank = prototypes.to(dtype).T
        log_target = torch.log_softmax(target.to(dtype) @ bank, dim=-1)
        log_prediction = torch.log_softmax(prediction.to(dtype) @ bank, dim=-1)
        return (log_target.exp() * (log_target - log_prediction)).sum() / max(target.shape[0], 1)


def prototype_kl(target: Tensor, prediction: Tensor, prototypes: Tensor, *, backend: str | None = None) -> Tensor:
    """KL(softmax(target E^T) || softmax(prediction E^T)), the mean over rows; no temperature, no noise.

    Args:
        target: [N, D] embeddings that set the target distributions; they get a gradient too.
        prediction: [N, D] embeddings of the dtype of `target`.
        prototypes: [K, D] the bank E, K >= 1, of the dtype of `target`.
        backend: see `prior_fast.ops._backend.resolve_backend`.

    Returns:
        [] float32 (float64 for float64), 0 when N is 0. Differentiable in all three tensors.

    Raises:
        ValueError: a shape, dtype, device or backend that does not fit; the message names it.
    """
    check_tensors(target=(target, "N D"), prediction=(prediction, "N D"), prototypes=(prototypes, "K D"))
    if prototypes.shape[0] == 0:
        raise ValueError(f"prototypes has shape {list(prototypes.shape)}, wanted at least one row")
    resolve_backend("prototype_kl", backend, {"reference": None})
    return prototype_kl_reference(target, prediction, prototypes)
