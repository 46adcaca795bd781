"""Attention weights of both directions of the local alignment, at PRIOR's batch size and eight times that."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, offsets, report_lengths, size

PATCHES = 49


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Forward pass of the launcher; the backward pass is plain PyTorch."""
    from prior_fast.kernels.attention_weights import attention_weights_fwd

    width = 768
    for reports in (128, 1024):
        sentences = report_lengths(reports)
        patches = [PATCHES] * reports
        for name, lengths_q, lengths_k in (("text<-image", sentences, patches), ("image<-text", patches, sentences)):
            q, k = (torch.randn(sum(n), 1, width, device=device, dtype=dtype) for n in (lengths_q, lengths_k))
            cu_q, cu_k = offsets(lengths_q, device), offsets(lengths_k, device)
            longest_q, longest_k = max(lengths_q), max(lengths_k)
            written = reports * longest_q * longest_k * q.element_size()
            yield Case(
                "attention_weights",
                f"{name} B={reports} Tq={len(q)} Tk={len(k)} H=1 D={width}",
                "forward",
                partial(attention_weights_fwd, q, k, cu_q, cu_k, longest_q, longest_k, width**-0.5, 0.0, "sigmoid"),
                size(q, k, cu_q, cu_k) + written,
                2 * width * sum(a * b for a, b in zip(lengths_q, lengths_k, strict=True)),
            )


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """One or several tiles of queries, of keys and of both; widths divisible by 16 or not; both activations."""
    from prior_fast.kernels.attention_weights import attention_weights_fwd

    for longest_q, longest_k, heads, width in (
        (3, 5, 2, 8),
        (49, 40, 1, 768),
        (100, 100, 1, 768),
        (100, 3, 2, 33),
        (3, 100, 1, 1024),
    ):
        q = torch.randn(longest_q, heads, width, device=device, dtype=dtype)
        k = torch.randn(longest_k, heads, width, device=device, dtype=dtype)
        cu_q, cu_k = offsets([longest_q], device), offsets([longest_k], device)
        for activation in ("sigmoid", "softmax"):
            yield partial(attention_weights_fwd, q, k, cu_q, cu_k, longest_q, longest_k, 0.5, 0.0, activation)


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """Sentences over patches. Each weight takes a product of D columns; the backward pass takes one more per side."""
    from prior_fast.ops import attention_weights

    width = 768
    for reports in batches(small):
        sentences, patches = report_lengths(reports), [PATCHES] * reports
        q, k = (torch.randn(sum(n), 1, width, device=device, dtype=dtype) for n in (sentences, patches))
        cu_q, cu_k = offsets(sentences, device), offsets(patches, device)
        written = reports * max(sentences) * PATCHES * q.element_size()
        product = 2 * width * sum(sentences) * PATCHES
        yield Public(
            "attention_weights",
            f"text<-image B={reports} Tq={len(q)} Tk={len(k)} H=1 D={width}",
            partial(attention_weights, max_seqlen_q=max(sentences), max_seqlen_k=PATCHES),
            (q, k, cu_q, cu_k),
            Work(size(q, k, cu_q, cu_k) + written, product),
            Work(2 * (size(q, k) + written) + size(cu_q, cu_k), 3 * product),
            wanted=(0, 1),
            at=reports,
        )
