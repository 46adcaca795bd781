"""The three stages' losses (supplement 2.4) in plain PyTorch: padded reports, and loops over samples."""

import torch
from torch import Tensor, nn

from prior_fast.model.image_decoder import reconstruction_loss
from prior_fast.model.prior import ImageEmbedding, PRIORModel

from .batch import PlainBatch
from .head import (
    align_attention,
    align_locally,
    bank_kl,
    contrast,
    match,
    pool_reports,
    pool_sentences,
    read_bank,
    read_contexts,
)
from .noise import Noise


def plain_terms(
    model: PRIORModel, batch: PlainBatch, stage: int, tau: float | Tensor, noise: Noise
) -> dict[str, Tensor]:
    """The named, unweighted loss terms [] of `prior_fast.training.stages`, from the same parameters.

    model: with `undo_rewrites` and `pad_text(packed=False)` applied.
    """
    config = model.config
    image = model.encode_images(batch.images, config.uses_patches(stage))
    encoded = encode_sentences(model, batch)
    lengths = [len(report) for report in encoded]
    sentences = torch.cat(encoded)
    if isinstance(model.local_text_projection, nn.Sequential):
        sentences = model.local_text_projection(sentences)
    read, terms = sentences, {}
    if config.reads_bank(stage):
        bank = model.sentence_bank.embed.weight
        read, l1 = read_bank(bank, sentences.to(bank.dtype), tau, noise.gumbel(0, sentences.to(bank.dtype), len(bank)))
        terms["prototype"] = l1
    reports = list(read.split(lengths))
    whole = pool_reports(model, reports)
    terms["global_alignment"] = contrast(image.whole, whole, model.logit_scale.exp())
    if config.use_local_alignment:
        terms["local_image"], terms["local_text"], context = align_locally(model, image.patches, reports)
        if config.aligns_attention:
            terms["attention_alignment"] = align_attention(model, image.patches, reports)
    elif config.reconstructs(stage):
        context = read_contexts(model, image.patches, reports)
    if config.reconstructs(stage):
        mask = noise.channels(image.patches, config.mask_ratio, batch)
        reconstructed = model.reconstruct_images(image.patches, context, mask)
        terms["image_reconstruction"] = reconstruction_loss(reconstructed, batch.images)
        terms |= generate(model, image, sentences, reports, whole, tau, noise)
    return terms


def encode_sentences(model: PRIORModel, batch: PlainBatch) -> list[Tensor]:
    """Each report's sentences [k, C]: before the projection if that is an MLP, after it if it is linear."""
    tokens = model.text_encoder(batch.token_ids, batch.attention_mask)
    # A linear projection comes first, on all tokens. An MLP can't come first: that would be another function.
    linear = isinstance(model.local_text_projection, nn.Linear)
    values = model.local_text_projection(tokens) if linear else tokens
    return pool_sentences(model.item_gather, tokens, values, batch.sentence_index)


def generate(
    model: PRIORModel,
    image: ImageEmbedding,
    sentences: Tensor,
    reports: list[Tensor],
    whole: Tensor,
    tau: float | Tensor,
    noise: Noise,
) -> dict[str, Tensor]:
    """The losses [] of the prototypes that the image predicts.

    sentences [S, D]: before the bank; reports: the sentences [k, D] of each report after the bank; whole [B, D].
    """
    distance, matched = match(model.sentence_decoder(image.patches), reports)
    terms = {"prototype_generation": distance}
    if model.config.use_bank:
        bank = model.sentence_bank.embed.weight
        generated = torch.cat(matched).to(bank.dtype)
        read, _ = read_bank(bank, generated, tau, noise.gumbel(2, generated, len(bank)))
        matched = list(read.split([len(report) for report in reports]))
        terms["prototype_kl"] = bank_kl(bank, sentences.to(bank.dtype), generated)
    pooled = pool_reports(model, matched, tracked=False)
    terms["report_generation"] = contrast(pooled, whole, model.logit_scale.exp())
    return terms
