"""Self-attention pooling of the tokens of sentences, at PRIOR's batch size and eight times that."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, offsets, report_lengths, size


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
        # Forward: a multiplication and an addition for each number. Backward: the same for dy.x, and w dy.
        yield Case("segment_softmax_pool", shape, "forward", forward, size(x, scores, cu, dy), 2 * tokens * width)
        yield Case(
            "segment_softmax_pool", shape, "backward", backward, size(dy, cu) + 2 * size(x, scores), 3 * tokens * width
        )


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Every BLOCK_D: a width of 1 (a constant to Triton), widths divisible by 16 or not; int64 offsets."""
    from prior_fast.kernels.segment_softmax_pool import segment_softmax_pool_bwd, segment_softmax_pool_fwd

    lengths = [3, 1, 17]
    cu = offsets(lengths, device)
    for width, cu_seqlens in ((1, cu), (32, cu), (50, cu), (100, cu), (1001, cu), (768, cu.long())):
        x = torch.randn(sum(lengths), width, device=device, dtype=dtype)
        scores = torch.randn(sum(lengths), device=device, dtype=dtype)
        dy = torch.randn(len(lengths), width, device=device, dtype=dtype)
        yield partial(segment_softmax_pool_fwd, x, scores, cu_seqlens)
        yield partial(segment_softmax_pool_bwd, dy, x, scores, cu_seqlens)


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """Ten tokens for each sentence of a batch. Operations as in `cases`."""
    from prior_fast.ops import segment_softmax_pool

    width = 768
    for reports in batches(small):
        sentences = sum(report_lengths(reports))
        x = torch.randn(10 * sentences, width, device=device, dtype=dtype)
        scores = torch.randn(len(x), device=device, dtype=dtype)
        cu, out = offsets([10] * sentences, device), sentences * width * x.element_size()
        forward = Work(size(x, scores, cu) + out, 2 * x.numel())
        both = Work(2 * (size(x, scores) + out) + size(cu), 5 * x.numel())
        shape = f"B={reports} T={len(x)} S={sentences} D={width}"
        inputs = (x, scores, cu)
        yield Public("segment_softmax_pool", shape, segment_softmax_pool, inputs, forward, both, (0, 1), at=reports)
