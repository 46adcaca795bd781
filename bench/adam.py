"""The update of all parameters of the paper's model, and of one that has a few small ones."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case

# The greater tensors of the model: twelve layers of BERT, its embedding, a ResNet-50 and two decoders in round numbers.
SIZES = [*[768 * 768] * 48, *[768 * 3072] * 24, 28996 * 768, *[512 * 2048] * 60, *[2048 * 512 * 9] * 6, *[768] * 300]
BYTES = 28  # of an update in float32: gradient, parameter and moments read, parameter and moments written


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The norm and the update. Gradients in float32 go with no copies, narrow ones with copies in their dtype.

    Operations: two for each number of the norm, sixteen of the update.
    """
    numbers = sum(SIZES)
    width = torch.empty(0, dtype=dtype).element_size()
    moved = BYTES if dtype == torch.float32 else BYTES - 4 + 2 * width
    norm, update = _runs(device, dtype, SIZES, True, True)
    yield Case("adam", f"{numbers} numbers", "norm", norm, width * numbers, 2 * numbers)
    yield Case("adam", f"{numbers} numbers", "update", update, moved * numbers, 16 * numbers)


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Both kinds of decay, addresses that are multiples of 16 or not."""
    for decoupled in (False, True):
        for aligned in (False, True):
            yield from _runs(device, dtype, [5, 100_000], decoupled, aligned)


def _runs(
    device: torch.device, dtype: torch.dtype, sizes: list[int], decoupled: bool, aligned: bool
) -> tuple[Callable[[], object], Callable[[], object]]:
    from prior_fast.kernels.adam import COLUMNS, RATES, Updated, adam_update, chunks_of, clipping

    count = len(sizes)
    addresses = torch.zeros(count, COLUMNS, dtype=torch.int64, device=device)
    gradients = torch.zeros(count, dtype=torch.int64, device=device)
    rates = torch.zeros(count, RATES, device=device)
    chunks = torch.from_numpy(chunks_of(sizes)).to(device)
    group = Updated(addresses, gradients, rates, chunks, dtype, dtype != torch.float32, aligned)
    found = torch.zeros(2, device=device)
    return partial(clipping, [group], 1.0), partial(adam_update, group, found, (0.9, 0.999), 1e-8, decoupled)
