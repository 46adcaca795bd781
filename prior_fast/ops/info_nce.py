"""Symmetric InfoNCE between two sets of paired vectors: PRIOR's global alignment."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from prior_fast.ops.common.backend import resolve_backend
from prior_fast.ops.common.checks import check_scalar, check_tensors, values_are_checked
from prior_fast.ops.common.precision import accumulation_dtype, full_precision
from prior_fast.ops.common.triton import with_triton

__all__ = ["info_nce"]

# Up to this number of pairs of rows, Triton's forward pass keeps the inner products for the backward pass, 8 MB for
# both sides.
KEPT_PRODUCTS = 1024 * 1024


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


@torch.library.custom_op("prior_fast::info_nce_stats", mutates_args=())
def _info_nce_stats(a: Tensor, b: Tensor, scale: Tensor, begin: int, rows: int, keep: bool) -> tuple[Tensor, Tensor]:
    """Rows begin .. begin + rows - 1 against all rows: stats [5, 2, rows] of loss and gradient, and the products."""
    from prior_fast.kernels.info_nce import info_nce_fwd

    return info_nce_fwd(a.contiguous(), b.contiguous(), scale, begin, rows, keep)


@_info_nce_stats.register_fake
def _(a: Tensor, b: Tensor, scale: Tensor, begin: int, rows: int, keep: bool) -> tuple[Tensor, Tensor]:
    stats = a.new_empty(5, 2, rows, dtype=torch.float32)
    return stats, a.new_empty(2 if keep else 0, rows, a.shape[0], dtype=torch.float32)


@torch.library.custom_op("prior_fast::info_nce", mutates_args=())
def _info_nce(
    a: Tensor, b: Tensor, scale: Tensor, all_a: Tensor, all_b: Tensor, stats: Tensor, kept: Tensor, begin: int
) -> tuple[Tensor, Tensor]:
    """The loss and d loss / d scale, from the stats [5, 2, N] of all rows.

    a and b are the rows of all_a and all_b from `begin` on; as inputs they get gradients. The second output is for the
    backward pass; no gradient flows through it.
    """
    from prior_fast.kernels.info_nce import info_nce_total

    return info_nce_total(stats.contiguous())


@_info_nce.register_fake
def _(
    a: Tensor, b: Tensor, scale: Tensor, all_a: Tensor, all_b: Tensor, stats: Tensor, kept: Tensor, begin: int
) -> tuple[Tensor, Tensor]:
    return stats.new_empty(()), stats.new_empty(())


@torch.library.custom_op("prior_fast::info_nce_backward", mutates_args=())
def _info_nce_backward(
    dloss: Tensor, a: Tensor, b: Tensor, scale: Tensor, stats: Tensor, slope: Tensor, kept: Tensor, begin: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of this rank's rows and of the scale; a, b and stats hold all rows."""
    from prior_fast.kernels.info_nce import info_nce_bwd

    return info_nce_bwd(dloss, a.contiguous(), b.contiguous(), scale, stats.contiguous(), slope, kept, begin)


@_info_nce_backward.register_fake
def _(
    dloss: Tensor, a: Tensor, b: Tensor, scale: Tensor, stats: Tensor, slope: Tensor, kept: Tensor, begin: int
) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = kept.shape[1], a.shape[1]
    return a.new_empty(rows, columns), b.new_empty(rows, columns), torch.empty_like(scale)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, scale, all_a, all_b, stats, kept, ctx.begin = inputs
    ctx.save_for_backward(all_a, all_b, scale, stats, output[1], kept)


def _backward(ctx: Any, dloss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _info_nce_backward(dloss, *ctx.saved_tensors, ctx.begin)
    return *gradients, None, None, None, None, None


_info_nce.register_autograd(_backward, setup_context=_setup_context)


def info_nce(
    a: Tensor,
    b: Tensor,
    logit_scale: float | Tensor,
    *,
    group: dist.ProcessGroup | None = None,
    backend: str | None = None,
) -> Tensor:
    """Symmetric InfoNCE: the mean of the cross-entropies of logit_scale * a b^T and of its transpose against i -> i.

    Van den Oord et al., "Representation learning with contrastive predictive coding" (2018), equation 4, in both
    directions as in CLIP. The op does not normalize: the caller passes unit vectors.

    With a process group, `a` and `b` are this rank's rows, the same number on every rank, and negatives come from all
    ranks. Every rank returns the loss of the joined batch. The value and the gradients of its own rows and of
    `logit_scale` equal those of a single process that holds the joined batch. DistributedDataParallel averages
    gradients over ranks; with it, multiply the gradients of `a` and `b` by the number of ranks. Do not multiply the
    gradient of `logit_scale`, which is complete on every rank.

    The reference computes the whole loss on every rank. The Triton backend compares a rank's own rows with all rows,
    so its work is linear in the rank's rows. It gathers the vectors and ten numbers per pair; its backward pass does
    not communicate. Its memory is linear in the rows too: above KEPT_PRODUCTS pairs of rows it stores no matrix of
    logits.

    Args:
        a: [B, D] unit vectors.
        b: [B, D] unit vectors of the dtype of `a`; row i belongs to row i of `a`.
        logit_scale: the multiplier itself (already exponentiated), a number or a tensor without dimensions.
        group: the process group to join; None for a single process.
        backend: see `prior_fast.ops.common.backend.resolve_backend`.

    Returns:
        [] float32 (float64 for float64), 0 when B is 0. Differentiable in a, b and logit_scale.

    Raises:
        ValueError: a shape, dtype, device or backend that does not fit; and, where values are checked
            (`prior_fast.ops.common.checks`), a number of rows that differs between ranks.
    """
    check_tensors(a=(a, "B D"), b=(b, "B D"))
    check_scalar("logit_scale", logit_scale, "a", a)
    choice = resolve_backend("info_nce", backend, with_triton(a, for_float32=_kernels_win(len(a), group)))
    if group is not None and values_are_checked(a):
        _check_equal_rows(a, group)
    if choice == "triton":
        return _with_triton(a, b, logit_scale, group)
    if group is not None:
        a, b = _join(a, group), _join(b, group)
    return info_nce_reference(a, b, logit_scale)


def _kernels_win(rows: int, group: dist.ProcessGroup | None) -> bool:
    """Whether the kernels are preferred in float32.

    Forward and backward with 128 rows on an H200, the kernels take 81 us and the reference 125 us. With 256 rows they
    take 152 and 148 us, with 1,024 rows 643 and 308 us (bench/results/nvidia-h200/kernels.json): cuBLAS multiplies
    float32 faster. But the reference stores a matrix of logits, which with a group is that of the joined batch on every
    rank.
    """
    return group is not None or rows <= 128 or rows * rows > KEPT_PRODUCTS


def _with_triton(a: Tensor, b: Tensor, logit_scale: float | Tensor, group: dist.ProcessGroup | None) -> Tensor:
    scale = logit_scale if isinstance(logit_scale, Tensor) else a.new_full((), logit_scale, dtype=torch.float32)
    rows, begin = a.shape[0], 0
    all_a, all_b = a.detach(), b.detach()
    if group is not None:
        begin = rows * dist.get_rank(group)
        all_a, all_b = _gather(all_a, group), _gather(all_b, group)
    keep = rows * all_a.shape[0] <= KEPT_PRODUCTS
    stats, kept = _info_nce_stats(all_a, all_b, scale.detach(), begin, rows, keep)
    if group is not None:
        # [ranks * 5, 2, rows] -> [5, 2, ranks * rows], in the order of the joined batch.
        stats = _gather(stats, group).unflatten(0, (-1, 5)).permute(1, 2, 0, 3).flatten(2)
    return _info_nce(a, b, scale, all_a, all_b, stats, kept, begin)[0]


def _gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The rows of all ranks in the order of ranks; every rank has the same number of rows."""
    gathered = x.new_empty((x.shape[0] * dist.get_world_size(group), *x.shape[1:]))
    dist.all_gather_into_tensor(gathered, x.contiguous(), group=group)
    return gathered


def _join(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The rows of all ranks in the order of ranks; only this rank's own rows get a gradient.

    Each rank computes the whole loss, so this gradient is complete without communication in the backward pass.
    """
    rows, rank = x.shape[0], dist.get_rank(group)
    gathered = _gather(x.detach(), group)
    return torch.cat([gathered[: rank * rows], x, gathered[(rank + 1) * rows :]])


def _check_equal_rows(x: Tensor, group: dist.ProcessGroup) -> None:
    counts = torch.empty(dist.get_world_size(group), dtype=torch.int64, device=x.device)
    dist.all_gather_into_tensor(counts, torch.tensor([x.shape[0]], device=x.device), group=group)
    if (counts != x.shape[0]).any():
        raise ValueError(
            f"a has {x.shape[0]} rows on this rank and {counts.tolist()} over the ranks, wanted equal numbers"
        )
