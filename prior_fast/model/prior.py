"""PRIOR: prototype representation joint learning from medical images and reports (ICCV 2023).

Letters in shapes: B pairs, P patches, S sentences, Q queries, D embedding width.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prior_fast.batch import FILLERS, PackedBatch
from prior_fast.config import ModelConfig
from prior_fast.model.image_decoder import ImageDecoder
from prior_fast.model.image_encoder import ImageEncoder, tokens_to_map
from prior_fast.model.local_alignment import LocalCrossAttention, SimSiamPredictor
from prior_fast.model.pooling import SentenceAttentionPool, SentenceGather
from prior_fast.model.projection import NoProjection, ProjectionHead, projection
from prior_fast.model.prototypes import SentencePrototypeBank
from prior_fast.model.sentence_decoder import SentenceDecoder
from prior_fast.model.text_encoder import TextEncoder


class ImageEmbedding(NamedTuple):
    """patches [B, P, D] (P = 0 if they were not asked for) and whole [B, D], not normalized."""

    patches: Tensor
    whole: Tensor


class PRIORModel(nn.Module):
    """The two encoders, the prototype bank, the local alignment module and the two decoders.

    vocab_size: tokens of the dataset's tokenizer.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.image_encoder = ImageEncoder(config.image, config.layout)
        self.text_encoder = TextEncoder(config.text, vocab_size)
        image_width, text_width = self.image_encoder.out_channels, self.text_encoder.out_channels
        self.item_gather = SentenceGather(text_width, config.sentence_pool)
        self.global_image_projection = projection(image_width, width, config.projection)
        self.local_image_projection = projection(image_width, width, config.projection)
        self.local_text_projection = projection(text_width, width, config.projection)
        # The released code builds a global text projection and never uses it.
        self.global_text_projection = ProjectionHead(width, width) if config.projection == "mlp" else NoProjection()
        self.global_text_attention = SentenceAttentionPool(width, config.report_pool_heads)
        self.sentence_bank = SentencePrototypeBank(
            config.bank.prototypes, width, config.bank.init, config.bank.precision
        )
        self.local_cross_attention = LocalCrossAttention(width, config.attention, config.attention_bias)
        self.predictor = SimSiamPredictor(width)
        self.sentence_decoder = SentenceDecoder(config.sentence_decoder, width)
        self.image_decoder = ImageDecoder(2 * width, config.decoder_norm, config.decoder_blocks, config.decoder_width)
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self.local_logit_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        # Convolutions run faster with the channels innermost, on GPUs and CPUs. Values and shapes do not change.
        self.to(memory_format=torch.channels_last)

    def encode_images(self, images: Tensor, patches: bool = True) -> ImageEmbedding:
        """Normalized images [B, 1, 224, 224] -> patches [B, P, D] and whole images [B, D].

        patches: false leaves them out, for stages that do not use them (`ModelConfig.uses_patches`).
        """
        local, whole = self.image_encoder(images.contiguous(memory_format=torch.channels_last))
        return self.project_images(local, whole, patches)

    def project_images(self, local: Tensor, whole: Tensor, patches: bool = True) -> ImageEmbedding:
        """The image encoder's tokens [B, P, C] and whole images [B, C] -> those of `encode_images`."""
        if patches:
            return ImageEmbedding(self.local_image_projection(local), self.global_image_projection(whole))
        projected = self.global_image_projection(whole)
        return ImageEmbedding(projected.new_empty(len(projected), 0, projected.shape[1]), projected)

    def encode_sentences(self, batch: PackedBatch) -> Tensor:
        """The sentences of a batch, before the bank: [S, D]."""
        cu_tokens, max_tokens = batch.cu_tokens, batch.max_tokens
        if batch.filler:  # the encoder sees it as further reports, whose tokens are not used below
            number = torch.arange(1, FILLERS + 1, device=cu_tokens.device, dtype=cu_tokens.dtype)
            cu_tokens = torch.cat([cu_tokens, cu_tokens[-1:] + batch.filler * number // FILLERS])
            max_tokens = max(max_tokens, (batch.filler + FILLERS - 1) // FILLERS)
        tokens = self.text_encoder(batch.token_ids, batch.position_ids, cu_tokens, max_tokens)
        tokens = tokens[batch.sentence_token_rows()]
        return self.local_text_projection(self.item_gather(tokens, batch.cu_sentence_tokens))

    def pool_report(self, sentences: Tensor, cu_sentences: Tensor, max_sentences: int, tracked: bool = True) -> Tensor:
        """Sentences [S, D] from the encoder or from the bank -> reports [B, D].

        tracked: whether training updates the projection's running statistics with these reports.
        """
        pooled = self.global_text_attention(sentences, cu_sentences, max_sentences)
        return self.global_text_projection(pooled, tracked)

    def reconstruct_images(self, patches: Tensor, context: Tensor, channel_mask: Tensor | None = None) -> Tensor:
        """Image patches and the text's context for them [B, P, D] -> images [B, 1, h, h] (`ImageDecoder`).

        channel_mask: factors [B, D] for the image embedding's channels; None: no masking.
        """
        layout = self.config.layout
        image_map = tokens_to_map(patches, layout)
        if channel_mask is not None:
            image_map = image_map * channel_mask[:, :, None, None].to(image_map.dtype)
        return self.image_decoder(image_map, tokens_to_map(context, layout))

    def stage_modules(self, stage: int) -> list[nn.Module | nn.Parameter]:
        """The parts that get a gradient in `stage` (1, 2 or 3)."""
        config = self.config
        parts: list[nn.Module | nn.Parameter] = [
            self.image_encoder, self.text_encoder, self.item_gather,
            self.global_image_projection, self.local_text_projection,
            self.global_text_projection, self.global_text_attention, self.logit_scale,
        ]  # fmt: skip
        if config.uses_patches(stage):
            parts += [self.local_image_projection, self.local_cross_attention]
        if config.use_local_alignment:
            parts += [self.predictor, self.local_logit_scale]
        if config.reads_bank(stage):
            parts += [self.sentence_bank]
        if config.reconstructs(stage):
            parts += [self.sentence_decoder, self.image_decoder]
        return parts
