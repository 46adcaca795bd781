"""transformers' BERT with the projections that take the same input as one product."""

from typing import Any

from torch import Tensor
from transformers import BertModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import BertCrossAttention, BertSelfAttention, eager_attention_forward

from prior_fast.model.joined_linear import JoinedLinear


class JoinedSelfAttention(BertSelfAttention):
    """Queries, keys and values of the tokens by one product; there is no cache of earlier tokens."""

    projections: JoinedLinear

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, past_key_values: None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """hidden_states [B, N, C] -> [B, N, C] and the attention function's weights, if it gives any."""
        return _attend(self, self.projections(hidden_states), attention_mask, **kwargs)


class JoinedCrossAttention(BertCrossAttention):
    """Keys and values of what is attended to by one product; there is no cache."""

    sources: JoinedLinear

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """hidden_states [B, N, C], encoder_hidden_states [B, M, C] -> [B, N, C] and weights, as above."""
        projected = (self.query(hidden_states), *self.sources(encoder_hidden_states))
        return _attend(self, projected, attention_mask, **kwargs)


def join_projections(bert: BertModel) -> None:
    """Change every attention of `bert` into the joined form; names and values in its state dict stay."""
    for module in bert.modules():
        if type(module) is BertSelfAttention:
            JoinedLinear.replace(module, "projections", ("query", "key", "value"))
            module.__class__ = JoinedSelfAttention
        elif type(module) is BertCrossAttention:
            JoinedLinear.replace(module, "sources", ("key", "value"))
            module.__class__ = JoinedCrossAttention


def _attend(
    module: BertSelfAttention | BertCrossAttention, projected: tuple[Tensor, ...], mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    heads = (x.unflatten(-1, (module.num_attention_heads, -1)).transpose(1, 2) for x in projected)
    function = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, eager_attention_forward)
    dropout = module.dropout.p if module.training else 0.0
    out, weights = function(module, *heads, mask, dropout=dropout, scaling=module.scaling, **kwargs)
    return out.flatten(2), weights
