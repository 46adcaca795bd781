"""The mean of the tokens of each sentence, at PRIOR's batch size and eight times that."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, offsets, report_lengths, size


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


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Every BLOCK_D: a width of 1 (a constant to Triton), widths divisible by 16 or not; int64 offsets."""
    from prior_fast.kernels.segment_mean import segment_mean_bwd, segment_mean_fwd

    lengths = [3, 1, 17]
    cu = offsets(lengths, device)
    for width, cu_seqlens in ((1, cu), (32, cu), (50, cu), (100, cu), (1001, cu), (768, cu.long())):
        x = torch.randn(sum(lengths), width, device=device, dtype=dtype)
        dy = torch.randn(len(lengths), width, device=device, dtype=dtype)
        yield partial(segment_mean_fwd, x, cu_seqlens)
        yield partial(segment_mean_bwd, dy, cu_seqlens, sum(lengths))


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """Ten tokens for each sentence of a batch. Operations: an addition per number; backward, a multiplication."""
    from prior_fast.ops import segment_mean

    width = 768
    for reports in batches(small):
        sentences = sum(report_lengths(reports))
        x = torch.randn(10 * sentences, width, device=device, dtype=dtype)
        cu, out = offsets([10] * sentences, device), sentences * width * x.element_size()
        forward = Work(size(x, cu) + out, x.numel())
        both = Work(2 * (size(x) + out) + size(cu), x.numel() + sentences * width)
        shape = f"B={reports} T={len(x)} S={sentences} D={width}"
        yield Public("segment_mean", shape, segment_mean, (x, cu), forward, both, wanted=(0,), at=reports)
