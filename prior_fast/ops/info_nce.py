"""Symmetric InfoNCE between two sets of paired vectors: PRIOR's global alignment."""

import torch
import torch.distributed as dist
from torch import Tensor

from prior_fast.ops._backend import resolve_backend
from prior_fast.ops._checks import check_scalar, check_tensors, values_are_checked
from prior_fast.ops._precision import accumulation_dtype, full_precision

__all__ = ["info_nce"]


def info_nce_reference(a: Tensor, b: Tensor, logit_scale: float | Tensor) -> Tensor:
    """`info_nce` of one process, in plain PyTorch."""
    dtype = accumulation_dtype(a)
    scale = logit_scale.to(dtype) if isinstance(logit_scale, Tensor) else logit_scale
    with full_precision(a):
        logits = (a.to(dtype) @ b.to(dtype).T) * scale
        positives = logits.diagonal()
        a_to_b = (logits.logsumexp(dim=1) - positives).sum()
        b_to_a = (logits.logsumexp(dim=0) - positives).sum()
        return (a_to_b + b_to_a) / (2 * max(a.shape[0], 1))


def info_nce(
    a: Tensor,
    b: Tensor,
    logit_scale: float | Tensor,
    *,
    group: dist.ProcessGroup | None = None,
    backend: str | None = None,
) -> Tensor:
    """Symmetric InfoNCE: the mean of the cross-entropies of logit_scale * a b^T and of its transpose against i -> i.

    Van den Oord et al., "Representation learning with contrastive predictive coding" (2018), equation 4, both ways as
    in CLIP. Rows are taken as they are: the caller makes them unit vectors.

    With a process group, `a` and `b` are this rank's rows, as many on every rank, and negatives come from all ranks.
    Every rank computes the loss of the joined batch: the value, the gradients of its own rows and of `logit_scale` are
    those of a single process that holds the joined batch. Where gradients are averaged over ranks afterwards, as by
    DistributedDataParallel, multiply this loss by the number of ranks before a model below `a` and `b`, but not
    before `logit_scale`, whose gradient is whole on every rank.

    Args:
        a: [B, D] unit vectors.
        b: [B, D] unit vectors of the dtype of `a`; row i belongs to row i of `a`.
        logit_scale: the multiplier itself (already exponentiated), a number or a tensor without dimensions.
        group: the process group to join; None for a single process.
        backend: see `prior_fast.ops._backend.resolve_backend`.

    Returns:
        [] float32 (float64 for float64), 0 when B is 0. Differentiable in a, b and logit_scale.

    Raises:
        ValueError: a shape, dtype, device or backend that does not fit; and, where values are checked
            (`prior_fast.ops._checks`), a number of rows that differs between ranks.
    """
    check_tensors(a=(a, "B D"), b=(b, "B D"))
    check_scalar("logit_scale", logit_scale, "a", a)
    resolve_backend("info_nce", backend, {"reference": None})
    if group is not None:
        if values_are_checked(a):
            _check_equal_rows(a, group)
        a, b = _join(a, group), _join(b, group)
    return info_nce_reference(a, b, logit_scale)


def _join(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The rows of all ranks in the order of ranks; only this rank's own take part in differentiation.

    Each rank computes the whole loss, so its own rows' gradient is complete without communication backwards.
    """
    rows, rank = x.shape[0], dist.get_rank(group)
    gathered = x.new_empty((rows * dist.get_world_size(group), *x.shape[1:]))
    dist.all_gather_into_tensor(gathered, x.detach().contiguous(), group=group)
    return torch.cat([gathered[: rank * rows], x, gathered[(rank + 1) * rows :]])


def _check_equal_rows(x: Tensor, group: dist.ProcessGroup) -> None:
    counts = torch.empty(dist.get_world_size(group), dtype=torch.int64, device=x.device)
    dist.all_gather_into_tensor(counts, torch.tensor([x.shape[0]], device=x.device), group=group)
    if (counts != x.shape[0]).any():
        raise ValueError(
            f"a has {x.shape[0]} rows on this rank and {counts.tolist()} over the ranks, wanted as many on each"
        )
