"""Packed segments: B runs of rows, concatenated, with offsets `cu_seqlens [B + 1]`.

No function here reads a value back to the host. If offsets are wrong and values are not checked
(`prior_fast.ops.common.checks`), results are undefined.
"""

import torch
from torch import Tensor


def segment_ids(cu_seqlens: Tensor, rows: int) -> Tensor:
    """The segment of each row: [rows] int64. Empty segments own no row."""
    positions = torch.arange(rows, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    # right=True skips the empty segments that start at the row's own position.
    return torch.searchsorted(cu_seqlens.contiguous(), positions, right=True) - 1


def segment_lengths(cu_seqlens: Tensor) -> Tensor:
    """Rows of each segment: [B], the dtype of the offsets."""
    return cu_seqlens[1:] - cu_seqlens[:-1]


def padded_index(cu_seqlens: Tensor, rows: int, max_seqlen: int) -> Tensor:
    """Where each packed row is in the flattened padded layout [B * max_seqlen]: [rows] int64."""
    ids = segment_ids(cu_seqlens, rows)
    starts = cu_seqlens.to(torch.int64)[ids]
    return ids * max_seqlen + torch.arange(rows, device=cu_seqlens.device) - starts


def padding_mask(cu_seqlens: Tensor, max_seqlen: int) -> Tensor:
    """True where the padded layout holds a row: [B, max_seqlen] bool."""
    positions = torch.arange(max_seqlen, device=cu_seqlens.device)
    return positions < segment_lengths(cu_seqlens).unsqueeze(1)


def pad(x: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> Tensor:
    """Packed [T, ...] to padded [B, max_seqlen, ...], zero in the padding."""
    batch = cu_seqlens.shape[0] - 1
    index = padded_index(cu_seqlens, x.shape[0], max_seqlen)
    padded = x.new_zeros((batch * max_seqlen, *x.shape[1:])).index_copy(0, index, x)
    return padded.view(batch, max_seqlen, *x.shape[1:])


def unpad(padded: Tensor, cu_seqlens: Tensor, rows: int) -> Tensor:
    """Padded [B, max_seqlen, ...] to packed [rows, ...]; the inverse of `pad`."""
    index = padded_index(cu_seqlens, rows, padded.shape[1])
    return padded.flatten(0, 1).index_select(0, index)


def segment_sum(x: Tensor, ids: Tensor, segments: int) -> Tensor:
    """Sum of the rows of each segment: [T, ...] to [segments, ...]."""
    return x.new_zeros((segments, *x.shape[1:])).index_add(0, ids, x)
