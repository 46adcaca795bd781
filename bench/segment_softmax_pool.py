"""Self-attention pooling of the tokens of sentences, at PRIOR's size and eight times that."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench._case import Case, offsets, size


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Forward and backward of the launchers."""
    from prior_fast.kernels.segment_softmax_pool import segment_softmax_pool_bwd, segment_softmax_pool_fwd

    for sentences in (1100, 8800):
        tokens, width = sentences * 10, 768
        x = torch.randn(tokens, width, device=device, dtype=dtype)
        scores = torch.randn(tokens, device=device, dtype=dtype)
        cu = offsets([10] * sentences, device)
        dy = torch.randn(sentences, width, device=device, dtype=dtype)
        shape = f"T={tokens} S={sentences} D={width}"
        forward = partial(segment_softmax_pool_fwd, x, scores, cu)
        backward = partial(segment_softmax_pool_bwd, dy, x, scores, cu)
        # Forward a multiplication and an addition for each number; backward those of dy.x, and w dy.
        yield Case("segment_softmax_pool", shape, "forward", forward, size(x, scores, cu, dy), 2 * tokens * width)
        yield Case(
            "segment_softmax_pool", shape, "backward", backward, size(dy, cu) + 2 * size(x, scores), 3 * tokens * width
        )


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Every BLOCK_D: a width of 1 (a constant to Triton), and widths that 16 divides or not; and int64 offsets."""
    from prior_fast.kernels.segment_softmax_pool import segment_softmax_pool_bwd, segment_softmax_pool_fwd

    lengths = [3, 1, 17]
    cu = offsets(lengths, device)
    for width, cu_seqlens in ((1, cu), (32, cu), (50, cu), (100, cu), (1001, cu), (768, cu.long())):
        x = torch.randn(sum(lengths), width, device=device, dtype=dtype)
        scores = torch.randn(sum(lengths), device=device, dtype=dtype)
        dy = torch.randn(len(lengths), width, device=device, dtype=dtype)
        yield partial(segment_softmax_pool_fwd, x, scores, cu_seqlens)
        yield partial(segment_softmax_pool_bwd, dy, x, scores, cu_seqlens)
