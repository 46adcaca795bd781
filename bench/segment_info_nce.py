"""The local alignment of the sentences of 128 reports, and of eight times as many."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, offsets, report_lengths, size


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Forward and backward of the launchers.

    Operations: each product of two vectors within a report once; in the backward pass each side's gradient.
    """
    width = 768
    for reports in (128, 1024):
        lengths = report_lengths(reports)
        forward, backward, inputs = _both(lengths, width, offsets(lengths, device), dtype)
        shape = f"B={reports} S={sum(lengths)} D={width}"
        operations = 2 * width * sum(length**2 for length in lengths)
        yield Case("segment_info_nce", shape, "forward", forward, size(*inputs), operations)
        yield Case("segment_info_nce", shape, "backward", backward, size(*inputs, *inputs[:2]), 2 * operations)


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Every BLOCK_J, which the longest report selects; widths divisible by 16 or not, and 1; the scale in float32 and
    in the vectors' dtype; int64 offsets."""
    for longest, width in ((16, 32), (17, 64), (40, 768), (16, 768), (40, 50), (3, 1)):
        lengths = [3, longest]
        cu = offsets(lengths, device)
        for scale_dtype, cu_seqlens in ((torch.float32, cu), (dtype, cu), (torch.float32, cu.long())):
            yield from _both(lengths, width, cu_seqlens, dtype, scale_dtype)[:2]


def _both(
    lengths: list[int], width: int, cu: torch.Tensor, dtype: torch.dtype, scale_dtype: torch.dtype = torch.float32
) -> tuple[Callable[[], object], Callable[[], object], tuple[torch.Tensor, ...]]:
    """Forward and backward, and the tensors that both read."""
    from prior_fast.kernels.segment_info_nce import segment_info_nce_bwd, segment_info_nce_fwd

    rows, longest, device = sum(lengths), max(lengths), cu.device
    a, b = (torch.nn.functional.normalize(torch.randn(rows, width, device=device), dim=1).to(dtype) for _ in "ab")
    scale = torch.full((), 14.0, device=device, dtype=scale_dtype)
    # Stand-ins for what the forward pass returns: the slope, 1 / number of reports, and statistics of the rows.
    one, stats = torch.ones((), device=device), torch.full((5, 2, rows), 0.5, device=device)
    forward = partial(segment_info_nce_fwd, a, b, scale, cu, longest)
    backward = partial(segment_info_nce_bwd, one, a, b, scale, cu, one, one, stats, longest)
    return forward, backward, (a, b, scale, cu)


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """A batch's reports, and reports of equal length. Operations as in `cases`."""
    for reports in batches(small):
        yield _public(report_lengths(reports), "batch", reports, device, dtype)
    for sentences in (4, 16, 32):
        yield _public([sentences] * batches(small)[0], "sentences", sentences, device, dtype)


def _public(lengths: list[int], axis: str, at: int, device: torch.device, dtype: torch.dtype) -> Public:
    from prior_fast.ops import segment_info_nce

    width, rows, cu = 768, sum(lengths), offsets(lengths, device)
    a, b = (torch.nn.functional.normalize(torch.randn(rows, width, device=device), dim=1).to(dtype) for _ in "ab")
    scale, loss = torch.full((), 14.0, device=device), 4
    product = 2 * width * sum(length**2 for length in lengths)
    return Public(
        "segment_info_nce",
        f"B={len(lengths)} S={rows} D={width}" + ("" if axis == "batch" else f", {at} each"),
        partial(segment_info_nce, max_seqlen=max(lengths)),
        (a, b, scale, cu),
        Work(size(a, b, scale, cu) + loss, product),
        Work(2 * (size(a, b, scale) + loss) + size(cu), 3 * product),
        wanted=(0, 1, 2),
        axis=axis,
        at=at,
    )
