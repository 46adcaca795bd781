"""The noise of a step's channel mask, at PRIOR's batch size and eight times that."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The launcher; numbers are float32 for every dtype. Each of the ten rounds takes ten 32-bit operations."""
    from prior_fast.kernels.philox_uniform import philox_uniform

    seed = torch.ones((), dtype=torch.int64, device=device)
    for pairs in (128, 1024):
        count = pairs * 768
        run = partial(philox_uniform, seed, count, 0)
        yield Case("philox_uniform", f"B={pairs} D=768", "forward", run, 4 * count, 100 * count)


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Counters that fit into 32 bits and counters that do not."""
    from prior_fast.kernels.philox_uniform import philox_uniform

    seed = torch.ones((), dtype=torch.int64, device=device)
    for first in (0, 2**40):
        yield partial(philox_uniform, seed, 5000, first)
