"""The tokens of sentences, at PRIOR's size and eight times that."""

from collections.abc import Iterator
from functools import partial

import torch

from bench._case import Case, offsets, size


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Forward and backward of the launchers."""
    from prior_fast.kernels.segment_mean import segment_mean_bwd, segment_mean_fwd

    for sentences in (1100, 8800):
        tokens, width = sentences * 10, 768
        x = torch.randn(tokens, width, device=device, dtype=dtype)
        cu = offsets([10] * sentences, device)
        dy = torch.randn(sentences, width, device=device, dtype=dtype)
        shape, moved = f"T={tokens} S={sentences} D={width}", size(x, dy, cu)
        yield Case("segment_mean", shape, "forward", partial(segment_mean_fwd, x, cu), moved, tokens * width)
        yield Case(
            "segment_mean", shape, "backward", partial(segment_mean_bwd, dy, cu, tokens), moved, sentences * width
        )
