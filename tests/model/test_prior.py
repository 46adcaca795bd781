"""The model that the preset `paper` builds, at small widths: patches, sentences, prototypes, sentence decoder."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig, preset
from prior_fast.model.prior import PRIORModel
from prior_fast.model.sentence_decoder import SentenceDecoder


def small(name: str) -> ModelConfig:
    """The structure of a preset with narrow parts."""
    config = preset(name).model
    decoder = dataclasses.replace(config.sentence_decoder, layers=1, heads=2, intermediate_size=16, dropout=0.0)
    return dataclasses.replace(
        config,
        image=ImageEncoderConfig(depths=(1, 1, 1, 1), width=8, pool_heads=2, weights="random"),
        text=TextEncoderConfig(weights="random", hidden_size=32, layers=1, heads=2, intermediate_size=16),
        sentence_decoder=decoder,
        embed_dim=32,
    )


def model_of(name: str) -> PRIORModel:
    torch.manual_seed(1)
    return PRIORModel(small(name), vocab_size=40).double().eval()


def make_batch(rng: np.random.Generator, lengths: tuple[tuple[int, ...], ...]) -> PackedBatch:
    reports = [[rng.integers(5, 40, n) for n in sentences] for sentences in lengths]
    numbers = torch.arange(len(lengths))
    images = torch.zeros(len(lengths), 1, 224, 224, dtype=torch.float64)
    return pack_reports(reports, 2, 3).with_images(images, study_ids=numbers, image_rows=numbers)


@torch.no_grad()
def test_a_patch_of_paper_is_a_position_of_the_image() -> None:
    """Patch 7 r + c has the channels of row r and column c, and the reconstruction puts it back there."""
    model = model_of("paper")
    images = torch.randn(2, 1, 224, 224, dtype=torch.float64)
    features = model.image_encoder.encoder(images)
    patches, _ = model.image_encoder(images)
    assert patches.shape == (2, 49, features.shape[1])
    for row, column in ((0, 0), (0, 3), (5, 2), (6, 6)):
        torch.testing.assert_close(patches[:, 7 * row + column], features[:, :, row, column])
    inputs: list[tuple[Tensor, ...]] = []
    model.image_decoder.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments))
    tokens = torch.randn(2, 2, 49, 32, dtype=torch.float64)
    model.reconstruct_images(tokens[0], tokens[1])
    for row, column in ((0, 3), (5, 2)):
        for given, placed in zip(tokens, inputs[0], strict=True):
            assert torch.equal(placed[:, :, row, column], given[:, 7 * row + column])


@pytest.mark.parametrize("name", ["paper", "released"])
@torch.no_grad()
def test_cls_and_sep_are_in_no_sentence(name: str, rng: np.random.Generator) -> None:
    """Each sentence is pooled from its own tokens alone; report by report, from the tokens that BERT returns."""
    model = model_of(name)
    lengths = ((3, 1, 2), (1,), (4, 2))
    batch = make_batch(rng, lengths)
    tokens = model.text_encoder(batch.token_ids, batch.position_ids, batch.cu_tokens, batch.max_tokens)
    sentences = []
    for report, counts in enumerate(lengths):
        first = int(batch.cu_tokens[report]) + 1
        assert batch.token_ids[first - 1] == 2 and batch.token_ids[first + sum(counts)] == 3
        sentences += list(tokens[first : first + sum(counts)].split(counts))
    pooled = [model.item_gather(x, torch.tensor([0, len(x)], dtype=torch.int32)) for x in sentences]
    wanted = model.local_text_projection(torch.cat(pooled))
    torch.testing.assert_close(model.encode_sentences(batch), wanted)


def test_prototypes_of_paper_start_with_an_l1_norm_of_one() -> None:
    weight = model_of("paper").sentence_bank.embed.weight
    torch.testing.assert_close(weight.abs().sum(dim=1), torch.ones(len(weight), dtype=torch.float64))
    # Gaussian before: not all of one sign and size.
    assert weight.std(dim=1).min() > 0.5 / weight.shape[1]
    assert model_of("released").sentence_bank.embed.weight.std().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("name", "sees_later"), [("paper", True), ("released", False)])
@torch.no_grad()
def test_queries_of_paper_see_later_queries_and_those_of_released_do_not(name: str, sees_later: bool) -> None:
    torch.manual_seed(2)
    decoder = SentenceDecoder(small(name).sentence_decoder, 32).double().eval()
    image = torch.randn(2, 49, 32, dtype=torch.float64)
    before = decoder(image)
    decoder.queries[:, -1] = torch.randn(32, dtype=torch.float64)
    after = decoder(image)
    assert not torch.equal(before[:, -1], after[:, -1])
    changed = (before[:, :-1] != after[:, :-1]).any(dim=(0, 2))
    assert changed.all() if sees_later else not changed.any()


@torch.no_grad()
def test_weights_of_papers_local_attention_do_not_sum_to_one() -> None:
    """A sigmoid of each product, not a softmax over the patches or the sentences."""
    attention = model_of("paper").local_cross_attention
    image, text = torch.randn(2, 49, 32, dtype=torch.float64), torch.randn(5, 32, dtype=torch.float64)
    over_image, over_text = attention.weights(image, text, torch.tensor([0, 2, 5], dtype=torch.int32), 3)
    for weights in (over_image[0, :2], over_image[1], over_text[0, :, :2], over_text[1]):
        assert ((weights > 0) & (weights < 1)).all()
        assert (weights.sum(dim=-1) - 1).abs().max() > 0.05
