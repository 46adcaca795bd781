"""The text encoder's attention with queries, keys and values in one tensor, on the kernels of packed_attention."""

from collections.abc import Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Public, Work, batches, offsets, size
from prior_fast.bench.packed_attention import HEADS, WIDTH, token_counts


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """Reports of some 90 tokens at several batch sizes."""
    from prior_fast.ops import packed_self_attention

    for reports in batches(small):
        lengths = token_counts(reports)
        qkv = torch.randn(sum(lengths), 3, HEADS, WIDTH, device=device, dtype=dtype)
        cu, out = offsets(lengths, device), qkv.numel() // 3 * qkv.element_size()
        # A product for the score and one for the output. Backward: one for each of the weights' gradient, dq, dk, dv.
        product = 2 * HEADS * WIDTH * sum(n * n for n in lengths)
        yield Public(
            "packed_self_attention",
            f"text encoder B={reports} T={len(qkv)} H={HEADS} D={WIDTH}",
            partial(packed_self_attention, max_seqlen=max(lengths)),
            (qkv, cu),
            Work(size(qkv, cu) + out, 2 * product),
            Work(2 * (size(qkv) + out) + size(cu), 6 * product),
            wanted=(0,),
            at=reports,
        )
