"""What enters each term of the three stages, by hooks on the model's parts and by formulas in float64."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.batch import PackedBatch
from prior_fast.config import ModelConfig, apply_overrides, preset
from prior_fast.model.prior import PRIORModel
from prior_fast.training.stages import STAGES, StepContext, attend, global_alignment, local_alignment
from tests.training.four_pairs import LENGTHS

QUIET = StepContext(0.5, seed=None)


@pytest.fixture
def config(small_settings: list[str]) -> ModelConfig:
    return apply_overrides(preset("tiny"), small_settings).model


@pytest.fixture
def model(config: ModelConfig) -> PRIORModel:
    torch.manual_seed(0)
    return PRIORModel(config, vocab_size=50).double()


class Calls:
    """The arguments and the results of a module's calls."""

    def __init__(self, module: nn.Module) -> None:
        self.arguments: list[tuple[Any, ...]] = []
        self.results: list[Any] = []
        module.register_forward_hook(self._note)

    def _note(self, module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        self.arguments.append(arguments)
        self.results.append(result)


def embeddings(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.tensor(rng.normal(size=shape))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_reports_and_local_alignment_take_sentences_after_the_bank_but_in_stage_1(
    stage: int, model: PRIORModel, batch: PackedBatch
) -> None:
    encoded, bank = Calls(model.local_text_projection), Calls(model.sentence_bank)
    pool, local = Calls(model.global_text_attention), Calls(model.local_cross_attention)
    STAGES[stage](model, batch, StepContext(0.5, seed=3))
    wanted = encoded.results[0] if stage == 1 else bank.results[0].output
    assert torch.equal(pool.arguments[0][0], wanted)
    assert torch.equal(local.arguments[0][1], wanted)
    if stage > 1:
        assert torch.equal(bank.arguments[0][0], encoded.results[0])
        assert not torch.equal(wanted, encoded.results[0])
    if stage == 3:
        # The generated report is pooled after the bank too.
        assert torch.equal(pool.arguments[1][0], bank.results[1].output)


def test_kl_has_the_reports_distribution_as_target_and_the_generated_one_as_prediction(
    model: PRIORModel, batch: PackedBatch
) -> None:
    """KL(target || prediction) of the distributions over the bank, from the sentences before it."""
    encoded, bank = Calls(model.local_text_projection), Calls(model.sentence_bank)
    terms = STAGES[3](model, batch, QUIET)
    target, prediction = encoded.results[0], bank.arguments[1][0]
    log_target, log_prediction = (
        F.log_softmax(x @ model.sentence_bank.embed.weight.T, -1) for x in (target, prediction)
    )

    def divergence(p: Tensor, q: Tensor) -> float:
        return F.kl_div(q, p, log_target=True, reduction="sum").item() / sum(LENGTHS)

    forward, reverse = divergence(log_target, log_prediction), divergence(log_prediction, log_target)
    assert abs(forward - reverse) > 1e-3 * forward
    assert terms["prototype_kl"].item() == pytest.approx(forward, rel=1e-9)


@pytest.mark.parametrize("layout", ["patches", "released"])
def test_the_image_mask_drops_whole_channels_in_training_and_none_without_noise(
    layout: str, config: ModelConfig, batch: PackedBatch
) -> None:
    torch.manual_seed(0)
    model = PRIORModel(dataclasses.replace(config, layout=layout, mask_ratio=0.5), vocab_size=50).double()
    decoder, patches = Calls(model.image_decoder), Calls(model.local_image_projection)
    context = Calls(model.local_cross_attention)
    for seed in (None, 3, 4):
        STAGES[3](model, batch, StepContext(0.5, seed))

    def as_map(tokens: Tensor) -> Tensor:
        pairs, _, channels = tokens.shape
        return (tokens if layout == "released" else tokens.mT).reshape(pairs, channels, 7, 7)

    masks = []
    for number, (image_map, text_map) in enumerate(decoder.arguments):
        torch.testing.assert_close(text_map, as_map(context.results[number].for_image))
        factors = image_map / as_map(patches.results[number])
        # One factor for a channel of an image: 0 or 1 / (1 - 0.5).
        assert factors.flatten(2).std(dim=2).max() < 1e-9
        masks.append(factors[:, :, 0, 0].round(decimals=6))
    assert masks[0].unique().tolist() == [1.0]
    assert masks[1].unique().tolist() == masks[2].unique().tolist() == [0.0, 2.0]
    assert 0.3 < (masks[1] == 0).double().mean() < 0.7
    assert not torch.equal(masks[1], masks[2]) and not torch.equal(masks[1][0], masks[1][1])


def test_the_local_text_loss_has_no_negatives_of_other_reports(
    model: PRIORModel, batch: PackedBatch, rng: np.random.Generator
) -> None:
    """By a formula over each report; also, another report's sentences do not change a report's part."""
    width = model.config.embed_dim
    patches, sentences = embeddings(rng, len(LENGTHS), 49, width), embeddings(rng, sum(LENGTHS), width)
    context = attend(model, batch, patches, sentences)
    terms = local_alignment(model, batch, patches, sentences, **context)
    parts = []
    for a, b in zip(sentences.split(LENGTHS), context["for_text"].split(LENGTHS), strict=True):
        logits = model.local_logit_scale.exp() * F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
        labels = torch.arange(len(a))
        parts.append((F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2)
    assert terms["local_text"].item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-9)


def test_the_global_loss_is_the_mean_of_both_directions(model: PRIORModel, rng: np.random.Generator) -> None:
    a, b = embeddings(rng, 6, 8), embeddings(rng, 6, 8)
    logits = model.logit_scale.exp() * F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    labels = torch.arange(6)
    image_to_text, text_to_image = F.cross_entropy(logits, labels), F.cross_entropy(logits.T, labels)
    assert abs(image_to_text - text_to_image) > 1e-3
    loss = global_alignment(model, a, b, QUIET)
    assert loss.item() == pytest.approx(((image_to_text + text_to_image) / 2).item(), rel=1e-9)


def test_gumbel_noise_is_drawn_in_training_alone(model: PRIORModel, batch: PackedBatch) -> None:
    """Without a seed the bank's mixture is a plain softmax, in every stage that reads it."""
    for stage in (2, 3):
        bank = Calls(model.sentence_bank)
        for seed in (None, 5):
            STAGES[stage](model, batch, StepContext(0.5, seed))
        calls = len(bank.results) // 2
        prototypes = model.sentence_bank.embed.weight
        for number, (arguments, read) in enumerate(zip(bank.arguments, bank.results, strict=True)):
            plain = torch.softmax(arguments[0] @ prototypes.T / 0.5, dim=-1) @ prototypes
            assert torch.allclose(read.output, plain, rtol=0, atol=1e-9) == (number < calls)
