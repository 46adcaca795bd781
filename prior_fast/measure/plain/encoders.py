"""Plain forms of parts of the model: BERT over padded reports, pools with all queries, a decoder that upsamples first,
and one matrix product for each projection.

Each class has the parameters of its base class and computes the same function, so changing the classes of a model's
modules makes the model plain. Joined layers are split; the model's state dict does not change. Letters in shapes:
B pairs, L padded tokens, T packed tokens, S sentences, C channels.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.model.bert import Bert
from prior_fast.model.image_encoder import AttentionPool2d
from prior_fast.model.joined_linear import JoinedLinear
from prior_fast.model.pooling import SentenceAttentionPool
from prior_fast.model.prior import ImageEmbedding, PRIORModel
from prior_fast.model.text_encoder import TextEncoder
from prior_fast.model.upsampled_conv import UpsampledConv2d
from prior_fast.ops.common.segments import pad, padding_mask, unpad
from prior_fast.ops.segment_mean import segment_mean


class PlainPRIOR(PRIORModel):
    """PRIOR with images in PyTorch's default memory layout."""

    def encode_images(self, images: Tensor, patches: bool = True) -> ImageEmbedding:
        """[B, 1, 224, 224] -> patches [B, P, D] and whole images [B, D]; patches is as in `PRIORModel`."""
        local, whole = self.image_encoder(images)
        return self.project_images(local, whole, patches)


class PaddedTextEncoder(TextEncoder):
    """BERT over [B, L] tokens with an attention mask."""

    attention_dropout: nn.Dropout

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        """token_ids, attention_mask [B, L] -> [B, L, C]."""
        dropout = self.attention_dropout.p if self.training else 0.0
        attend = partial(masked_attention, mask=attention_mask[:, None, None].bool(), dropout=dropout)
        return self.encoder(self.encoder.embeddings.word_embeddings(token_ids), attend)


class RepackedTextEncoder(PaddedTextEncoder):
    """BERT over padded reports that takes and returns packed tokens."""

    padded_to: int

    def forward(  # type: ignore[override]
        self, token_ids: Tensor, position_ids: Tensor, cu_tokens: Tensor, max_tokens: int
    ) -> Tensor:
        """token_ids, position_ids [T], cu_tokens [B + 1] -> [T, C]."""
        width = max(self.padded_to, max_tokens)
        output = super().forward(pad(token_ids, cu_tokens, width), padding_mask(cu_tokens, width))
        return unpad(output, cu_tokens, token_ids.shape[0])


def masked_attention(joined: Tensor, mask: Tensor, dropout: float) -> Tensor:
    """Softmax attention: query, key, value [B, L, 3, H, D], mask [B, 1, 1, L], True at real keys -> [B, L, H, D]."""
    query, key, value = joined.unbind(2)
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout).transpose(1, 2)


class AllQueriesPool2d(AttentionPool2d):
    """Attention with the mean and all 49 positions as queries; only the mean's output is kept."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C]."""
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding
        return attend_all(self, x, None)[:, 0]


class AllQueriesReportPool(SentenceAttentionPool):
    """Attention with the mean and all sentences as queries, padded to the longest report; the mean's output is kept."""

    def forward(self, sentences: Tensor, cu_sentences: Tensor, max_sentences: int) -> Tensor:
        """sentences [S, C], cu_sentences [B + 1] -> [B, C]."""
        mean = segment_mean(sentences, cu_sentences)
        padded = pad(sentences, cu_sentences, max_sentences)
        rows = torch.cat([mean[:, None], padded], dim=1)
        return attend_all(self, rows, F.pad(padding_mask(cu_sentences, max_sentences), (1, 0), value=True))[:, 0]


def attend_all(pool: AttentionPool2d | SentenceAttentionPool, x: Tensor, mask: Tensor | None) -> Tensor:
    """Multi-head self-attention: x [B, N, C], mask [B, N] bool, True at real keys -> [B, N, C]."""
    q, k, v = (
        layer(x).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
        for layer in (pool.q_proj, pool.k_proj, pool.v_proj)
    )
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
    return pool.c_proj((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))


class UpsampleThenConv2d(UpsampledConv2d):
    """Nearest-neighbour upsampling by 2 in memory, then the 3x3 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, 2h, 2w]."""
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), self.weight, self.bias, padding=1)


class SeparateLinears:
    """Computes the outputs of a joined layer with separate layers, one matrix product for each."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        self.layers = layers

    def __call__(self, x: Tensor, first: int | None = None) -> tuple[Tensor, ...]:
        """x [..., C] -> [..., width] of each layer, or of the `first` ones."""
        return tuple(layer(x) for layer in self.layers[:first])

    def joined(self, x: Tensor) -> Tensor:
        """x [..., C] -> [..., width of all layers]."""
        return torch.cat(self(x), dim=-1)


PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    PRIORModel: PlainPRIOR,
    AttentionPool2d: AllQueriesPool2d,
    SentenceAttentionPool: AllQueriesReportPool,
    UpsampledConv2d: UpsampleThenConv2d,
}


def undo_rewrites(model: PRIORModel) -> None:
    """Give `model` the plain pools, decoder and projections, and PyTorch's default memory layout."""
    for module in [*model.modules()]:
        if isinstance(module, Bert):
            module.fused = False
        if type(module) in PLAIN:
            module.__class__ = PLAIN[type(module)]
        for name, child in [*module.named_children()]:
            if isinstance(child, JoinedLinear):
                separate(module, name, child)
    model.to(memory_format=torch.contiguous_format)


def separate(owner: nn.Module, name: str, joined: JoinedLinear) -> None:
    """Split `joined`, the submodule `name` of `owner`, into layers of `owner`."""
    layers = []
    for part, weight, bias in zip(joined.names, joined.weight.split(joined.width), joined.bias.split(joined.width)):
        layer = nn.Linear(joined.in_features, joined.width, device="meta")
        layer.weight, layer.bias = (nn.Parameter(x.detach().clone()) for x in (weight, bias))
        owner.add_module(part, layer)
        layers.append(layer)
    delattr(owner, name)
    setattr(owner, name, SeparateLinears(layers))


def pad_text(model: PRIORModel, tokens: int, packed: bool) -> None:
    """Make the text encoder of `model` run on reports padded to `tokens`, with BERT's dropout of attention weights.

    packed: whether it takes and returns packed tokens (`RepackedTextEncoder`) or padded ones.
    """
    encoder = model.text_encoder
    encoder.__class__ = RepackedTextEncoder if packed else PaddedTextEncoder
    encoder.attention_dropout = nn.Dropout(encoder.config.attention_dropout)
    encoder.padded_to = tokens  # type: ignore[assignment]
