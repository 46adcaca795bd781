"""The text encoder: BERT (supplement 2.2) over packed reports, without the padding of supplement 2.1.

A batch is T rows of tokens. Position ids restart in each report, and attention stays within a report.
Letters in shapes: T tokens, H heads, D width of a head.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.config import TextEncoderConfig
from prior_fast.model.bert import Bert, BertStructure, attends_packed
from prior_fast.model.report_attention import report_attention
from prior_fast.ops.common.segments import pad, padding_mask, unpad
from prior_fast.ops.packed_self_attention import packed_self_attention


class TextEncoder(nn.Module):
    """Packed reports -> token features. Weights start random; `prior_fast.model.build` loads pretrained ones.

    vocab_size: tokens of the dataset's tokenizer.
    """

    def __init__(self, config: TextEncoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        structure = BertStructure(
            hidden_size=config.hidden_size,
            layers=config.layers,
            heads=config.heads,
            intermediate_size=config.intermediate_size,
            hidden_act=config.hidden_act,
            layer_norm_eps=config.layer_norm_eps,
            dropout=config.dropout,
            positions=config.positions,
            token_types=config.token_types,
            residual=config.residual,
        )
        # BERT's 0.02 for all weights but the words'. Positions and layers then change the words little at first: the
        # encoder starts as a bag of words. With hidden_size^-0.5 for all, a small model's contrastive loss stays at
        # chance for three times as many steps.
        self.encoder = Bert(structure, vocab_size)
        nn.init.normal_(self.encoder.embeddings.word_embeddings.weight, std=config.hidden_size**-0.5)
        self.out_channels = config.hidden_size

    def forward(self, token_ids: Tensor, position_ids: Tensor, cu_tokens: Tensor, max_tokens: int) -> Tensor:
        """token_ids, position_ids [T], cu_tokens [B + 1] -> [T, hidden_size]."""
        attend = partial(attend_within_reports, cu_tokens=cu_tokens, max_tokens=max_tokens)
        return self.encoder(self.encoder.embeddings.word_embeddings(token_ids), attend, position_ids)


def attend_within_reports(joined: Tensor, cu_tokens: Tensor, max_tokens: int) -> Tensor:
    """Softmax attention within each report: query, key and value [T, 3, H, D] -> [T, H, D].

    On a CPU, and on a GPU in half precision, the reports stay packed; on a GPU in float32 they are padded inside this
    function only. No path has dropout of attention weights.
    """
    if attends_packed(joined):
        return packed_self_attention(joined, cu_tokens, max_tokens)
    query, key, value = joined.unbind(1)
    if query.device.type == "cpu":
        return report_attention(query, key, value, cu_tokens, query.shape[-1] ** -0.5)
    return padded_attention(query, key, value, cu_tokens, max_tokens)


def padded_attention(query: Tensor, key: Tensor, value: Tensor, cu_tokens: Tensor, max_tokens: int) -> Tensor:
    """Softmax attention within each report, padded inside; query, key, value [T, H, D] -> [T, H, D]."""
    q, k, v = (pad(x, cu_tokens, max_tokens).transpose(1, 2) for x in (query, key, value))
    mask = padding_mask(cu_tokens, max_tokens)[:, None, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return unpad(out.transpose(1, 2), cu_tokens, query.shape[0])
