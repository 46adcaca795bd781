"""One call of the greedy kernel, in bfloat16."""

from collections.abc import Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, size


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The only shape that it takes."""
    from prior_fast.kernels.greedy import greedy_fwd

    if dtype == torch.bfloat16:
        x = torch.randn(1024, 1024, device=device, dtype=dtype)
        yield Case("greedy", "1024 x 1024", "forward", partial(greedy_fwd, x), 2 * size(x), 2 * x.numel())
