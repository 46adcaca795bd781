"""One call of the spilling kernel, in bfloat16."""

from collections.abc import Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, size


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The only shape that it takes."""
    from prior_fast.kernels.spilling import spilling_fwd

    if dtype == torch.bfloat16:
        x = torch.randn(16384, device=device, dtype=dtype)
        yield Case("spilling", "16384", "forward", partial(spilling_fwd, x), 2 * size(x), 2 * x.numel())
