"""A batch for plain code: every report padded to one length, and a sentence number for each token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from prior_fast.batch import PackedBatch
from prior_fast.ops.common.segments import pad, padding_mask, segment_ids


@dataclass(frozen=True)
class PlainBatch:
    """B pairs, reports padded to L tokens.

    Attributes:
        images: [B, 1, H, W] float, normalized.
        token_ids: [B, L] int64, 0 in the padding.
        attention_mask: [B, L] int64, 1 where there is a token.
        sentence_index: [B, L] int64, a token's sentence in its report from 0; -1 for [CLS], [SEP] and padding.
        packed: the batch that it was made from.
    """

    images: Tensor
    token_ids: Tensor
    attention_mask: Tensor
    sentence_index: Tensor
    packed: PackedBatch


def pad_batch(batch: PackedBatch, tokens: int) -> PlainBatch:
    """`batch` with its reports padded to `tokens`.

    Raises:
        ValueError: a report is longer than that.
    """
    if batch.max_tokens > tokens:
        raise ValueError(f"a report has {batch.max_tokens} tokens, wanted at most {tokens}")
    rows = batch.sentence_token_rows()
    sentence = segment_ids(batch.cu_sentence_tokens, len(rows))
    first = batch.cu_sentences.long()[segment_ids(batch.cu_sentences, batch.num_sentences)]
    # Shifted by one, so that the zeros of `pad` stand for no sentence.
    number = torch.zeros_like(batch.token_ids).index_copy(0, rows, (sentence - first[sentence]) + 1)
    real = batch.token_ids.shape[0] - batch.filler
    return PlainBatch(
        images=batch.images,
        token_ids=pad(batch.token_ids[:real], batch.cu_tokens, tokens),
        attention_mask=padding_mask(batch.cu_tokens, tokens).long(),
        sentence_index=pad(number[:real], batch.cu_tokens, tokens) - 1,
        packed=batch,
    )
