"""Pools over packed segments: tokens to sentences, sentences to a report.

Letters in shapes: T tokens in sentences, S sentences, B reports, C channels.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from prior_fast.model.joined_linear import JoinedLinear
from prior_fast.ops.common.segments import segment_ids
from prior_fast.ops.segment_mean import segment_mean
from prior_fast.ops.segment_softmax_pool import segment_softmax_pool
from prior_fast.ops.sigmoid_attention import sigmoid_attention


class SentenceGather(nn.Module):
    """Tokens of a sentence -> one vector.

    pool: "attention": self-attention pooling (supplement 2.2): softmax over a sentence of e_i = q_i . sum_j k_j, with
        queries and keys of an eighth of the width, a form that the released code has but does not use; "mean": the
        mean (released).
    """

    projections: JoinedLinear

    def __init__(self, channels: int, pool: Literal["attention", "mean"]) -> None:
        super().__init__()
        self.pool = pool
        if pool == "attention":
            JoinedLinear(channels, channels // 8, ("query", "key")).register(self, "projections")

    def forward(self, tokens: Tensor, cu_sentence_tokens: Tensor) -> Tensor:
        """tokens [T, C], cu_sentence_tokens [S + 1] -> [S, C]."""
        if self.pool == "mean":
            return segment_mean(tokens, cu_sentence_tokens)
        lengths = cu_sentence_tokens.diff()[:, None]
        query, key = self.projections(tokens)
        keys = segment_mean(key, cu_sentence_tokens) * lengths
        sentence = segment_ids(cu_sentence_tokens, tokens.shape[0])
        scores = (query * keys[sentence]).sum(dim=-1)
        return segment_softmax_pool(tokens, scores.to(tokens.dtype), cu_sentence_tokens)


class SentenceAttentionPool(nn.Module):
    """Sentences of a report -> one vector: self-attention pooling (supplement 2.2).

    It is multi-head attention of the mean over the mean and the sentences (released).
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, channels)
        self.num_heads = num_heads

    def forward(self, sentences: Tensor, cu_sentences: Tensor, max_sentences: int) -> Tensor:
        """sentences [S, C], cu_sentences [B + 1] -> [B, C]."""
        reports = cu_sentences.shape[0] - 1
        each = torch.arange(reports + 1, device=cu_sentences.device, dtype=cu_sentences.dtype)
        mean = segment_mean(sentences, cu_sentences)
        # Each report's mean goes before its sentences: rows [mean_0, s_0, s_1, mean_1, s_2, ...].
        rows = sentences.shape[0]
        places = torch.arange(rows, device=sentences.device) + segment_ids(cu_sentences, rows) + 1
        keys = sentences.new_zeros(rows + reports, sentences.shape[1])
        keys = keys.index_copy(0, (cu_sentences + each)[:-1].long(), mean).index_copy(0, places, sentences)
        # With one query, W_k is applied to the query and W_v to the weighted sum, so the rows are not projected.
        # Each head is a query over the whole width. b_k would add the same to all logits of a softmax.
        query = self.q_proj(mean).unflatten(-1, (self.num_heads, -1))
        folded = torch.einsum("bhd,hdc->bhc", query, self._by_head(self.k_proj.weight)).to(keys.dtype)
        pooled = sigmoid_attention(
            folded.flatten(0, 1)[:, None],
            keys[:, None],
            keys[:, None],
            each * self.num_heads,
            cu_sentences + each,
            self.num_heads,
            max_sentences + 1,
            scale=query.shape[-1] ** -0.5,
            activation="softmax",
        )
        heads = pooled[:, 0].unflatten(0, (-1, self.num_heads))
        values = torch.einsum("bhc,hdc->bhd", heads, self._by_head(self.v_proj.weight)).flatten(1)
        # b_k gets a zero gradient, as in the plain form: data parallelism waits for the gradient of each parameter.
        return self.c_proj(values + self.v_proj.bias + 0 * self.k_proj.bias)

    def _by_head(self, parameter: Tensor) -> Tensor:
        return parameter.unflatten(0, (self.num_heads, -1))
