"""The sentence decoder: learned queries attend to image patches and become sentence prototypes (supplement 2.3)."""

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from prior_fast.config import SentenceDecoderConfig
from prior_fast.model.bert import join_projections
from prior_fast.model.text_encoder import BIDIRECTIONAL


class SentenceDecoder(nn.Module):
    """BERT layers with cross-attention over Q learned queries; every query sees all others unless `causal`.

    causal: the released decoder lets query i see only queries up to i; its published weights want that.
    """

    def __init__(self, config: SentenceDecoderConfig, channels: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, config.queries, channels))
        self.decoder = BertModel(
            BertConfig(
                vocab_size=1,  # the input is the queries: the word table is dropped below
                hidden_size=channels,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.intermediate_size,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
                is_decoder=True,  # transformers builds cross-attention only into decoders
                add_cross_attention=True,
                use_cache=False,
            ),
            add_pooling_layer=False,
        )
        self.decoder.set_input_embeddings(None)
        join_projections(self.decoder)
        self.decoder.set_attn_implementation("sdpa" if config.causal else BIDIRECTIONAL)

    def forward(self, image: Tensor) -> Tensor:
        """Image patches [B, P, D] -> predicted prototypes [B, Q, D], in no order."""
        queries = self.queries.expand(image.shape[0], -1, -1)
        return self.decoder(inputs_embeds=queries, encoder_hidden_states=image).last_hidden_state
