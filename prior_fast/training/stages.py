"""The three stages' losses, one function each: the stages by supplement 2.4, the terms by supplement 2.3.

Where the supplement is silent they are those of the released code. docs/configuration.md lists both, and the terms that
remain if a part of the model is turned off (`ModelConfig.use_...`).

A stage function maps a model and a batch to named, unweighted loss terms; `weighted_sum` computes the loss from them.
Letters in shapes: B pairs, P patches, S sentences, Q queries, D embedding width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional as F

from prior_fast.batch import PackedBatch
from prior_fast.config import LossWeights
from prior_fast.model.attention_alignment import attention_alignment
from prior_fast.model.exchange import Exchange
from prior_fast.model.image_decoder import reconstruction_loss
from prior_fast.model.local_alignment import simsiam_loss
from prior_fast.model.precision import widen
from prior_fast.model.prior import ImageEmbedding, PRIORModel
from prior_fast.ops.common.philox import uniform
from prior_fast.ops.info_nce import info_nce
from prior_fast.ops.match_prototypes import match_prototypes
from prior_fast.ops.segment_info_nce import segment_info_nce
from prior_fast.training.branches import Branches, Function, Tensors

Terms = dict[str, Tensor]
LOCAL_TERMS = ("local_image", "local_text", "attention_alignment")


@dataclass(frozen=True)
class StepContext:
    """What a step needs besides the model and the batch.

    Attributes:
        tau: temperature of the bank's Gumbel-softmax; a tensor [] where the step is compiled.
        seed: seed of the step's noise; the same on every rank. None: no noise and no masking.
        group: the process group whose ranks share the global negatives; None in a single process.
        exchange: between the ranks of `group`, if they are processes of one machine.
        branches: runs independent parts at once; None: one after the other.
    """

    tau: float | Tensor
    seed: int | None = None
    group: ProcessGroup | None = None
    exchange: Exchange | None = None
    branches: Branches | None = None

    def noise_seed(self, stream: int) -> int | None:
        """The seed of one of a step's independent noise streams."""
        return None if self.seed is None else self.seed * 4 + stream


def stage1(model: PRIORModel, batch: PackedBatch, step: StepContext) -> Terms:
    """Global and local alignment on sentence embeddings, without the bank."""
    image, sentences = encode_pairs(model, batch, step, model.config.uses_patches(1))
    report = model.pool_report(sentences, batch.cu_sentences, batch.max_sentences)
    return {
        "global_alignment": global_alignment(model, image.whole, report, step),
        **local_terms(model, batch, step, image.patches, sentences),
    }


def stage2(model: PRIORModel, batch: PackedBatch, step: StepContext) -> Terms:
    """Stage 1 on the prototypes that the sentences read from the bank, and the bank's own loss."""
    image, sentences = encode_pairs(model, batch, step, model.config.uses_patches(2))
    read, l1 = read_bank(model, batch, step, sentences)
    report = model.pool_report(read, batch.cu_sentences, batch.max_sentences)
    return {
        "global_alignment": global_alignment(model, image.whole, report, step),
        **local_terms(model, batch, step, image.patches, read),
        **bank_term(batch, l1),
    }


def stage3(model: PRIORModel, batch: PackedBatch, step: StepContext) -> Terms:
    """Stage 2, and conditional reconstruction of the masked image and of the report's prototypes."""
    if not model.config.use_reconstruction:
        return stage2(model, batch, step)
    image, sentences = encode_pairs(model, batch, step)
    read, l1 = read_bank(model, batch, step, sentences)
    report = model.pool_report(read, batch.cu_sentences, batch.max_sentences)
    context = attend(model, batch, image.patches, read)
    mask = channel_mask(image.patches, model.config.mask_ratio, batch, step.noise_seed(1))

    def reconstruct(patches: Tensor, for_image: Tensor, **_: Tensor) -> Terms:
        output = model.reconstruct_images(patches, for_image, mask)
        return {"image_reconstruction": reconstruction_loss(output, batch.images)}

    def others(patches: Tensor, sentences: Tensor, read: Tensor, report: Tensor, **context: Tensor) -> Terms:
        local: Terms = {}
        if model.config.use_local_alignment:
            local = local_alignment(model, batch, patches, read, **context)
            local |= aligned_attention(model, batch, step, patches, read)
        return {**local, **prototype_generation(model, batch, step, patches, sentences, read, report)}

    inputs = {"patches": image.patches, "sentences": sentences, "read": read, "report": report, **context}
    reconstruction, terms = both(step, model, reconstruct, others, inputs)
    return {
        "global_alignment": global_alignment(model, image.whole, report, step),
        **{name: terms.pop(name) for name in LOCAL_TERMS if name in terms},
        **bank_term(batch, l1),
        **reconstruction,
        **terms,
    }


STAGES = {1: stage1, 2: stage2, 3: stage3}


def both(
    step: StepContext, model: PRIORModel, one: Function, other: Function, inputs: Mapping[str, Tensor]
) -> tuple[Tensors, Tensors]:
    """one(**inputs) and other(**inputs), at once if the step has branches (`Branches.run`)."""
    if step.branches is None:
        return one(**inputs), other(**inputs)
    return step.branches.run(one, other, inputs, model.logit_scale)


def encode_pairs(
    model: PRIORModel, batch: PackedBatch, step: StepContext, with_patches: bool = True
) -> tuple[ImageEmbedding, Tensor]:
    """The images of a batch, and its sentences [S, D] before the bank."""

    def encode_images() -> Tensors:
        return model.encode_images(batch.images, with_patches)._asdict()

    def encode_sentences() -> Tensors:
        return {"sentences": model.encode_sentences(batch)}

    image, text = both(step, model, encode_images, encode_sentences, {})
    return ImageEmbedding(**image), text["sentences"]


def weighted_sum(terms: Terms, weights: LossWeights, stage: int) -> Tensor:
    """The stage's loss []."""
    factors = {name: getattr(weights, name) for name in terms}
    factors["global_alignment"] = weights.global_alignment[stage - 1]
    return torch.stack([widen(terms[name]) * factors[name] for name in terms]).sum()


def global_alignment(model: PRIORModel, a: Tensor, b: Tensor, step: StepContext) -> Tensor:
    """Symmetric InfoNCE [] of two sets of embeddings [B, D], with the negatives of all ranks."""
    a, b = F.normalize(widen(a), dim=-1), F.normalize(widen(b), dim=-1)
    if step.group is not None:
        a, b = gradient_of_all_ranks(a, step.group), gradient_of_all_ranks(b, step.group)
    return info_nce(a, b, model.logit_scale.exp(), group=step.group)


def gradient_of_all_ranks(x: Tensor, group: ProcessGroup) -> Tensor:
    """x, with its gradient multiplied by the number of ranks.

    `info_nce` gives each rank the gradient of the joined loss for its own rows. These gradients must be summed over
    ranks, since no other rank has these rows, but data parallelism averages them.
    """
    ranks = torch.distributed.get_world_size(group)
    return x + (ranks - 1) * (x - x.detach())


def read_bank(
    model: PRIORModel, batch: PackedBatch, step: StepContext, sentences: Tensor, stream: int = 0
) -> tuple[Tensor, Tensor | None]:
    """What sentences [S, D] read from the bank, [S, D], and its loss []; without a bank the sentences, and None.

    stream: of the step's noise.
    """
    if not model.config.use_bank:
        return sentences, None
    read = model.sentence_bank(sentences, step.tau, step.noise_seed(stream), batch.first_sentence)
    return read.output, read.l1


def bank_term(batch: PackedBatch, l1: Tensor | None) -> Terms:
    """The bank's term; none without a bank."""
    return {} if l1 is None else {"prototype": l1 * batch.sentence_share}


def attend(model: PRIORModel, batch: PackedBatch, patches: Tensor, sentences: Tensor) -> Terms:
    """The context of the patches [B, P, D], `for_image`, and with local alignment that of the sentences, `for_text`."""
    attention = model.local_cross_attention
    if not model.config.use_local_alignment:
        return {"for_image": attention.for_image(patches, sentences, batch.cu_sentences, batch.max_sentences)}
    return attention(patches, sentences, batch.cu_sentences, batch.max_sentences)._asdict()


def local_terms(model: PRIORModel, batch: PackedBatch, step: StepContext, patches: Tensor, sentences: Tensor) -> Terms:
    """The terms of local alignment and of attention alignment; none without local alignment.

    patches [B, P, D]; sentences [S, D]: from the encoder in stage 1, from the bank in stage 2.
    """
    if not model.config.use_local_alignment:
        return {}

    def local(patches: Tensor, sentences: Tensor) -> Terms:
        return local_alignment(model, batch, patches, sentences, **attend(model, batch, patches, sentences))

    def aligned(patches: Tensor, sentences: Tensor) -> Terms:
        return aligned_attention(model, batch, step, patches, sentences)

    one, other = both(step, model, local, aligned, {"patches": patches, "sentences": sentences})
    return {**one, **other}


def local_alignment(
    model: PRIORModel, batch: PackedBatch, patches: Tensor, sentences: Tensor, for_image: Tensor, for_text: Tensor
) -> Terms:
    """SimSiam between patches and their text context, InfoNCE within a report between sentences and image context.

    patches, for_image [B, P, D]; sentences, for_text [S, D].
    """
    return {
        "local_image": simsiam_loss(patches, for_image, model.predictor),
        "local_text": segment_info_nce(
            F.normalize(widen(sentences), dim=-1),
            F.normalize(widen(for_text), dim=-1),
            model.local_logit_scale.exp(),
            batch.cu_sentences,
            batch.max_sentences,
        ),
    }


def aligned_attention(
    model: PRIORModel, batch: PackedBatch, step: StepContext, patches: Tensor, sentences: Tensor
) -> Terms:
    """The term of attention alignment; none where the config has none."""
    if not model.config.aligns_attention:
        return {}
    text = sentences, batch.cu_sentences
    loss = attention_alignment(model.local_cross_attention, patches, *text, step.group, step.exchange)
    return {"attention_alignment": loss * batch.sentence_share}


def channel_mask(patches: Tensor, ratio: float, batch: PackedBatch, seed: int | None) -> Tensor | None:
    """Factors [B, D] that drop a share `ratio` of an image embedding's channels and scale up the rest."""
    if seed is None or ratio == 0:
        return None
    pairs, _, channels = patches.shape
    noise = uniform(seed, (pairs, channels), first=batch.first_pair * channels, device=patches.device)
    return (noise >= ratio).float() / (1 - ratio)


def prototype_generation(
    model: PRIORModel,
    batch: PackedBatch,
    step: StepContext,
    patches: Tensor,
    sentences: Tensor,
    prototypes: Tensor,
    report: Tensor,
) -> Terms:
    """Prototypes predicted from the image alone, matched one to one with the report's.

    Without a bank, sentences are predicted.

    patches [B, P, D]; sentences, prototypes [S, D]: before and after the bank; report [B, D].
    """
    predicted = model.sentence_decoder(patches)
    match = match_prototypes(predicted.to(prototypes.dtype), prototypes, batch.cu_sentences)
    target, query = gather_matched(match, batch.cu_sentences, prototypes)
    # Row j: the prediction that is matched to sentence j.
    generated = predicted.flatten(0, 1)[query]
    read, _ = read_bank(model, batch, step, generated, stream=2)
    # Without updating the running statistics, which are those of real reports.
    generated_report = model.pool_report(read, batch.cu_sentences, batch.max_sentences, tracked=False)
    return {
        "prototype_generation": F.l1_loss(widen(predicted), widen(target)),
        **kl_term(model, batch, sentences, generated),
        "report_generation": global_alignment(model, generated_report, report, step),
    }


def kl_term(model: PRIORModel, batch: PackedBatch, sentences: Tensor, generated: Tensor) -> Terms:
    """The divergence of both sentences' [S, D] distributions over the bank; none without a bank."""
    if not model.config.use_bank:
        return {}
    return {"prototype_kl": model.sentence_bank.kl(sentences, generated) * batch.sentence_share}


def gather_matched(match: Tensor, cu_sentences: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """The prototype matched to each query, and the query matched to each sentence.

    match [B, Q] int64 (-1: padding), cu_sentences [B + 1], prototypes [S, D] -> targets [B, Q, D], zero for queries
    matched to padding, and rows [S] of the flattened queries.
    """
    reports, queries = match.shape
    sentences = prototypes.shape[0]
    # Queries matched to padding point at row S, one past the sentences: their target is zero, and no sentence has them.
    row = torch.where(match >= 0, match + cu_sentences[:-1, None], sentences)
    target = torch.cat([prototypes, prototypes.new_zeros(1, prototypes.shape[1])])[row]
    numbers = torch.arange(reports * queries, device=match.device)
    query = numbers.new_zeros(sentences + 1).scatter(0, row.flatten(), numbers)[:sentences]
    return target, query
