"""The lookup of a batch's sentences in a bank of 512 prototypes, at PRIOR's batch size and eight times that."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, report_lengths, size

K, D = 512, 768
SHAPES = ((K, D), (130, 70), (20, 30), (5, 3), (1, 1))
ROWS = ((40, SHAPES), (4096, SHAPES[:3]))


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Forward, with noise from a seed, and backward of the launchers.

    Bytes: inputs, results and their gradients, as if only the noise were kept between the passes. Operations: the two
    products of the forward pass and the four of the backward pass.
    """
    from prior_fast.kernels.prototype_lookup import prototype_lookup_bwd, prototype_lookup_fwd

    for reports in (128, 1024):
        rows = sum(report_lengths(reports))
        x, bank, tau, seed = _inputs(device, dtype, rows, K, D)
        output, sign, logits, stats = _saved(x, K)
        dl1 = torch.ones((), device=device)
        shape, product = f"N={rows} K={K} D={D}", 2 * rows * K * D
        forward = partial(prototype_lookup_fwd, x, bank, tau, None, seed, 0)
        moved = size(x, bank, tau, seed, output, dl1) + rows * 8
        yield Case("prototype_lookup", shape, "forward", forward, moved, 2 * product)
        backward = partial(prototype_lookup_bwd, output, dl1, x, bank, tau, logits, sign, stats, True)
        moved = size(x, bank, tau, output, dl1) + size(x, bank)
        yield Case("prototype_lookup", shape, "backward", backward, moved, 4 * product)


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Few and many rows; numbers of prototypes and columns that fill tiles or not, divisible by 16 or not, and 1.

    At PRIOR's sizes also every kind of noise, and the gradient of each output alone. float32 in both precisions.
    """
    from prior_fast.kernels.prototype_lookup import prototype_lookup_bwd, prototype_lookup_fwd

    for precision in ("ieee", "tf32x3") if dtype == torch.float32 else ("ieee",):
        for rows, prototypes, columns in ((n, *shape) for n, shapes in ROWS for shape in shapes):
            x, bank, tau, seed = _inputs(device, dtype, rows, prototypes, columns)
            output, sign, logits, stats = _saved(x, prototypes)
            backward = partial(
                prototype_lookup_bwd,
                x=x,
                prototypes=bank,
                tau=tau,
                logits=logits,
                sign=sign,
                stats=stats,
                with_bank=True,
                precision=precision,
            )
            forward = partial(prototype_lookup_fwd, precision=precision)
            yield partial(forward, x, bank, tau, None, seed, 0)
            yield partial(backward, output, tau)
            if prototypes == K:
                yield partial(backward, output, None)
                yield partial(backward, None, tau)
                for noise in (None, logits, logits.to(dtype)):
                    yield partial(forward, x, bank, tau, noise, None, 0)


def _inputs(
    device: torch.device, dtype: torch.dtype, rows: int, prototypes: int, columns: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, bank, tau and seed."""
    x, bank = (torch.randn(n, columns, device=device, dtype=dtype) for n in (rows, prototypes))
    return x, bank, torch.full((), 0.5, device=device), torch.zeros((), dtype=torch.int64, device=device)


def _saved(x: torch.Tensor, prototypes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stand-ins for the forward pass's results: output, signs, logits and stats (greatest logit and sum of a row)."""
    logits = torch.randn(x.shape[0], prototypes, device=x.device)
    stats = torch.full((2, x.shape[0]), 5.0, device=x.device)
    return torch.randn_like(x), torch.ones_like(x, dtype=torch.int8), logits, stats


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """A batch's sentences, and banks of other sizes. Operations as in `cases`."""
    for reports in batches(small):
        yield _public(reports, K, "batch", reports, device, dtype)
    for prototypes in (128, 2048):
        yield _public(batches(small)[0], prototypes, "prototypes", prototypes, device, dtype)


def _public(reports: int, prototypes: int, axis: str, at: int, device: torch.device, dtype: torch.dtype) -> Public:
    from prior_fast.ops import prototype_lookup

    rows = sum(report_lengths(reports))
    x, bank, tau, seed = _inputs(device, dtype, rows, prototypes, D)
    product, l1 = 2 * rows * prototypes * D, 4
    # What is written: rows like x, an index of 8 bytes for each, and l1.
    forward = Work(size(x, bank, tau, seed) + size(x) + 8 * rows + l1, 2 * product)
    both = Work(forward.least_bytes + size(x) + l1 + size(x, bank), 6 * product)
    return Public(
        "prototype_lookup",
        f"B={reports} N={rows} K={prototypes} D={D}",
        _lookup(prototype_lookup),
        (x, bank, tau, seed),
        forward,
        both,
        wanted=(0, 1),
        axis=axis,
        at=at,
        # The index of the greatest logit may differ if two logits are nearly equal.
        judged=lambda found, *inputs: (found.output, found.l1),
    )


def _lookup(op: Callable[..., Any]) -> Callable[..., Any]:
    """The op with noise from its fourth tensor, the seed."""

    def lookup(
        x: torch.Tensor, bank: torch.Tensor, tau: torch.Tensor, seed: torch.Tensor, backend: str | None = None
    ) -> Any:
        return op(x, bank, tau, seed=seed, backend=backend)

    return lookup
