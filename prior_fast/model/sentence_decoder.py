"""The sentence decoder: BERT layers (supplement 2.3) that make sentence prototypes of learned queries (released).

The queries attend to each other and to image patches.
"""

from functools import partial

import torch
from torch import Tensor, nn

from prior_fast.config import SentenceDecoderConfig
from prior_fast.model.bert import Bert, BertStructure, attend_to_self, attend_within


class SentenceDecoder(nn.Module):
    """BERT layers with cross-attention over Q learned queries; every query sees all others unless `causal`.

    causal: query i sees only queries up to i, as in the released decoder; the published weights need this.
    """

    def __init__(self, config: SentenceDecoderConfig, channels: int) -> None:
        super().__init__()
        self.causal = config.causal
        self.queries = nn.Parameter(torch.randn(1, config.queries, channels))
        structure = BertStructure(
            hidden_size=channels,
            layers=config.layers,
            heads=config.heads,
            intermediate_size=config.intermediate_size,
            dropout=config.dropout,
            residual=config.residual,
        )
        self.decoder = Bert(structure, cross_attention=True)
        self.attention_dropout = nn.Dropout(config.dropout)

    def forward(self, image: Tensor) -> Tensor:
        """Image patches [B, P, D] -> predicted prototypes [B, Q, D], in no particular order."""
        dropout = self.attention_dropout.p if self.training else 0.0
        return self.decoder(
            self.queries.expand(image.shape[0], -1, -1),
            attend=partial(attend_to_self, dropout=dropout, causal=self.causal, packed=self.decoder.fused),
            sources=image,
            attend_to_sources=partial(attend_within, dropout=dropout, packed=self.decoder.fused),
        )
