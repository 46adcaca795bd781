"""A case, and a shape that leads to another version of the kernel."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, size


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The main shape."""
    from prior_fast.kernels.fitting import fitting_fwd

    x = torch.randn(64, 16, device=device, dtype=dtype)
    yield Case("fitting", "N=16", "forward", partial(fitting_fwd, x), 2 * size(x), 2 * 64 * 16 * 16)


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """A wider shape."""
    from prior_fast.kernels.fitting import fitting_fwd

    yield partial(fitting_fwd, torch.randn(64, 32, device=device, dtype=dtype))
