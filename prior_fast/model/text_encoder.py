"""The text encoder: transformers' own BertModel over packed reports, without padding.

The reports of a batch form one row of T tokens with position ids that restart; an attention function registered with
transformers keeps each report to itself. Letters in shapes: T tokens, H heads, D width of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, BertConfig, BertModel
from transformers.utils import logging

from prior_fast.config import TextEncoderConfig
from prior_fast.errors import UsageError
from prior_fast.model.bert import join_projections
from prior_fast.model.report_attention import report_attention
from prior_fast.ops._segments import pad, padding_mask, unpad

PACKED = "prior_fast_packed"
BIDIRECTIONAL = "prior_fast_bidirectional"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    cu_tokens: Tensor,
    max_tokens: int,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Softmax attention within each report; query, key, value [1, H, T, D] -> [1, T, H, D].

    On a CPU, and on a GPU in half precision, the reports stay packed; on a GPU in float32 they are padded inside this
    function only. There is no dropout of attention weights on any path: torch's packed attention takes none.
    """
    scale = scaling or query.shape[-1] ** -0.5
    if query.device.type == "cpu":
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        return report_attention(q, k, v, cu_tokens, scale)[None], None
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        # What varlen_attn calls, were it sure to: on Hopper newer versions of torch prefer cuDNN, by a test of the
        # longest report against 128 tokens, for which a compiled step would be compiled a second time.
        flash = torch.ops.aten._flash_attention_forward
        sizes = cu_tokens, cu_tokens, max_tokens, max_tokens
        return flash(q, k, v, *sizes, 0.0, False, return_debug_mask=False, scale=scale)[0][None], None
    return padded_attention(query, key, value, cu_tokens, max_tokens, scale), None


def padded_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_tokens: Tensor, max_tokens: int, scale: float
) -> Tensor:
    """Softmax attention within each report, padded inside; query, key, value [1, H, T, D] -> [1, T, H, D]."""
    q, k, v = (pad(x[0].transpose(0, 1), cu_tokens, max_tokens).transpose(1, 2) for x in (query, key, value))
    mask = padding_mask(cu_tokens, max_tokens)[:, None, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return unpad(out.transpose(1, 2), cu_tokens, query.shape[2])[None]


def bidirectional_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Full softmax attention; query [B, H, Q, D], key and value [B, H, K, D] -> [B, Q, H, D]."""
    out = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scaling)
    return out.transpose(1, 2), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


for _name, _function in ((PACKED, packed_attention), (BIDIRECTIONAL, bidirectional_attention)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, _no_mask)


class TextEncoder(nn.Module):
    """Packed reports -> token features (supplement 2.2).

    vocab_size: tokens of the dataset's tokenizer; pretrained weights must have been made with one of that size.
    max_tokens: positions of an encoder with random weights.

    Raises:
        UsageError: the weights can't be had, or belong to another vocabulary.
    """

    def __init__(self, config: TextEncoderConfig, vocab_size: int, max_tokens: int = 512) -> None:
        super().__init__()
        if config.weights == "random":
            bert = BertConfig(
                vocab_size=vocab_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.intermediate_size,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
                max_position_embeddings=max_tokens,
                # BERT's 0.02 is for widths near 768; at small ones it leaves attention flat for long.
                initializer_range=config.hidden_size**-0.5,
            )
            self.encoder = BertModel(bert, add_pooling_layer=False)
            self.origin = "text encoder: random weights"
        else:
            self.encoder = _pretrained_bert(config.weights, vocab_size)
            self.origin = f"text encoder: weights from {config.weights}"
        join_projections(self.encoder)
        self.encoder.set_attn_implementation(PACKED)
        self.out_channels: int = self.encoder.config.hidden_size

    def architecture(self) -> TextEncoderConfig:
        """The encoder's sizes, as a configuration that builds it again without its pretrained weights."""
        bert = self.encoder.config
        return TextEncoderConfig(
            weights="random",
            hidden_size=bert.hidden_size,
            layers=bert.num_hidden_layers,
            heads=bert.num_attention_heads,
            intermediate_size=bert.intermediate_size,
            dropout=bert.hidden_dropout_prob,
        )

    def forward(self, token_ids: Tensor, position_ids: Tensor, cu_tokens: Tensor, max_tokens: int) -> Tensor:
        """token_ids, position_ids [T], cu_tokens [B + 1] -> [T, hidden_size]."""
        output = self.encoder(
            input_ids=token_ids[None], position_ids=position_ids[None], cu_tokens=cu_tokens, max_tokens=max_tokens
        )
        return output.last_hidden_state[0]


def _pretrained_bert(weights: str, vocab_size: int) -> BertModel:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the pooler that we leave out is no news to the user
    try:
        model = BertModel.from_pretrained(weights, add_pooling_layer=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"model.text.weights={weights} could not be loaded ({str(error).splitlines()[0]}): give a folder with a "
            "BERT model, or ask for model.text.weights=random"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
    if model.config.vocab_size != vocab_size:
        raise UsageError(
            f"model.text.weights={weights} has a vocabulary of {model.config.vocab_size} tokens, the prepared dataset "
            f"one of {vocab_size}: prepare the dataset again with --tokenizer {weights}"
        )
    return model
