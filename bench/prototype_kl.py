"""The KL divergence of a batch's sentences and generated sentences, at PRIOR's batch size and eight times that."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, report_lengths, size

K, D = 512, 768
SHAPES = ((K, D), (130, D), (130, 70), (20, 30), (5, 3), (1, 1))


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Forward and backward of the launchers.

    Bytes: inputs, results and their gradients, as if nothing were kept between the passes. Operations: the two products
    of the forward pass and the four of the backward pass.
    """
    from prior_fast.kernels.prototype_kl import prototype_kl_bwd, prototype_kl_fwd

    for reports in (128, 1024):
        rows = sum(report_lengths(reports))
        inputs, saved = _tensors(device, dtype, rows, K, D)
        kl = torch.ones((), device=device)
        shape, product = f"N={rows} K={K} D={D}", 2 * rows * K * D
        forward = partial(prototype_kl_fwd, *inputs)
        yield Case("prototype_kl", shape, "forward", forward, size(*inputs, kl), 2 * product)
        backward = partial(prototype_kl_bwd, kl, *inputs, *saved, True, True)
        yield Case("prototype_kl", shape, "backward", backward, 2 * size(*inputs) + size(kl), 4 * product)


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Few and many rows; numbers of prototypes and columns that fill tiles or not, divisible by 16 or not, and 1.

    float32 in both precisions.
    """
    from prior_fast.kernels.prototype_kl import prototype_kl_bwd, prototype_kl_fwd

    kl = torch.ones((), device=device)
    for rows, shapes in ((40, SHAPES), (4096, SHAPES[:4])):
        for prototypes, columns in shapes:
            inputs, saved = _tensors(device, dtype, rows, prototypes, columns)
            for precision in ("ieee", "tf32x3") if dtype == torch.float32 else ("ieee",):
                yield partial(prototype_kl_fwd, *inputs, precision)
                yield partial(prototype_kl_bwd, kl, *inputs, *saved, True, True, precision)


def _tensors(
    device: torch.device, dtype: torch.dtype, rows: int, prototypes: int, columns: int
) -> tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Target, prediction and bank; and stand-ins for the logits and stats that the forward pass returns."""
    target, prediction, bank = (torch.randn(n, columns, device=device, dtype=dtype) for n in (rows, rows, prototypes))
    return (target, prediction, bank), (
        torch.randn(2, rows, prototypes, device=device),
        torch.full((5, rows), 5.0, device=device),
    )


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """A batch's sentences, and banks of other sizes. Operations as in `cases`."""
    for reports in batches(small):
        yield _public(reports, K, "batch", reports, device, dtype)
    for prototypes in (128, 2048):
        yield _public(batches(small)[0], prototypes, "prototypes", prototypes, device, dtype)


def _public(reports: int, prototypes: int, axis: str, at: int, device: torch.device, dtype: torch.dtype) -> Public:
    from prior_fast.ops import prototype_kl

    rows = sum(report_lengths(reports))
    target, prediction, bank = (torch.randn(n, D, device=device, dtype=dtype) for n in (rows, rows, prototypes))
    # With prototypes of this norm, the two distributions are neither uniform nor concentrated on one prototype.
    inputs = (target, prediction, bank * D**-0.5)
    product, kl = 2 * rows * prototypes * D, 4
    return Public(
        "prototype_kl",
        f"B={reports} N={rows} K={prototypes} D={D}",
        prototype_kl,
        inputs,
        Work(size(*inputs) + kl, 2 * product),
        Work(2 * (size(*inputs) + kl), 6 * product),
        wanted=(0, 1, 2),
        axis=axis,
        at=at,
    )
