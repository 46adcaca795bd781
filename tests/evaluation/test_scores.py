"""Scores of all pairs computed at once against scores of one pair at a time."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.encode import EmbeddedImages, EmbeddedTexts, Encoder, no_track
from prior_fast.evaluation.scores import PairScores, gloria_scores, local_scores, pair_scores, pool, score_images
from prior_fast.model.local_alignment import LocalCrossAttention
from prior_fast.training.checkpoint import open_checkpoint


@pytest.fixture(scope="module")
def encoded(store: Path, checkpoint: Path) -> tuple[Encoder, EmbeddedImages, EmbeddedTexts]:
    dataset, encoder = PreparedDataset.open(store, "test"), Encoder(open_checkpoint(checkpoint), "cpu")
    texts = [dataset.sentences(study)[: 1 + study] for study in range(4)]
    return encoder, encoder.images(dataset.images, [0, 3, 5]), encoder.texts(texts)


@torch.inference_mode()
def test_pairs_equal_a_loop_over_pairs(encoded: tuple[Encoder, EmbeddedImages, EmbeddedTexts]) -> None:
    encoder, images, texts = encoded
    scores = pair_scores(encoder.model, images, texts)
    bounds = texts.cu_sentences.tolist()
    assert bounds == [0, 1, 3, 6, 10]
    for n in range(3):
        for m, (begin, end) in enumerate(pairwise(bounds)):
            cosine = torch.cosine_similarity(images.whole[n].double(), texts.reports[m].double(), dim=0)
            assert scores.whole[n, m] == pytest.approx(float(encoder.model.logit_scale.double().exp() * cosine))
            assert scores.whole[n, m] / scores.scale == pytest.approx(float(cosine))
            one = torch.tensor([0, end - begin], dtype=torch.int32)
            over_patches, over_text = encoder.model.local_cross_attention.weights(
                images.patches[n : n + 1], texts.prototypes[begin:end], one, end - begin
            )
            wanted = (over_patches.double().mean() + over_text.double().mean()) / 2
            assert scores.local[n, m] == pytest.approx(float(wanted), rel=1e-6)


def test_the_chunk_changes_nothing(encoded: tuple[Encoder, EmbeddedImages, EmbeddedTexts]) -> None:
    encoder, images, texts = encoded
    whole = pair_scores(encoder.model, images, texts)
    for chunk in (1, 49 * 10, 49 * 10 * 2):
        np.testing.assert_allclose(pair_scores(encoder.model, images, texts, chunk).local, whole.local, rtol=1e-6)


def test_images_a_few_at_a_time(store: Path, encoded: tuple[Encoder, EmbeddedImages, EmbeddedTexts]) -> None:
    encoder, _, texts = encoded
    images, rows = PreparedDataset.open(store, "test").images, np.array([9, 3, 5, 0, 12])
    together = score_images(encoder, images, rows, texts, no_track)
    apart = score_images(encoder, images, rows, texts, no_track, at_once=2)
    np.testing.assert_allclose(apart.whole, together.whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(apart.local, together.local, rtol=1e-5)
    assert apart.whole.shape == (5, 4) and apart.scale == together.scale


def test_progress_counts_every_image(encoded: tuple[Encoder, EmbeddedImages, EmbeddedTexts]) -> None:
    encoder, images, texts = encoded
    counts: list[int] = []
    pair_scores(encoder.model, images, texts, chunk=1, advance=counts.append)
    assert counts == [1, 1, 1]


@pytest.mark.parametrize("axis", [0, 1])
def test_combined_is_a_sum_of_softmaxes_over_the_candidates(axis: int, rng: np.random.Generator) -> None:
    whole, local = rng.normal(size=(3, 5)) * 50, rng.random((3, 5))
    combined = PairScores(whole, local).combined(axis, local_weight=0.5)
    for index in range((5, 3)[axis]):
        line = np.s_[:, index] if axis == 0 else np.s_[index, :]
        exp_whole, exp_local = np.exp(whole[line] - whole[line].max()), np.exp(local[line])
        wanted = exp_whole / exp_whole.sum() + 0.5 * exp_local / exp_local.sum()
        np.testing.assert_allclose(combined[line], wanted, rtol=1e-12)


def test_softmax_attention_has_no_local_score() -> None:
    attention = LocalCrossAttention(16, "softmax")
    scores = local_scores(attention, torch.randn(2, 49, 16), torch.randn(3, 16), torch.tensor([0, 1, 3]))
    assert scores.shape == (2, 2) and not scores.any()


@torch.inference_mode()
def test_a_text_without_the_bank_is_scored_by_its_sentences(store: Path, checkpoint: Path) -> None:
    opened = open_checkpoint(checkpoint)
    first = dataclasses.replace(opened, position=dataclasses.replace(opened.position, stage=1))
    texts = [["Mild pulmonary edema is observed .", "The bones are intact ."]]
    with_bank, without = Encoder(opened, "cpu").texts(texts), Encoder(first, "cpu").texts(texts)
    torch.testing.assert_close(without.prototypes, without.sentences, rtol=0, atol=0)
    torch.testing.assert_close(with_bank.sentences, without.sentences)
    assert (with_bank.prototypes - with_bank.sentences).abs().max() > 0.01
    bank = Encoder(opened, "cpu")
    logits = with_bank.sentences @ bank.model.sentence_bank.embed.weight.T / bank.tau
    torch.testing.assert_close(with_bank.prototypes, logits.softmax(-1) @ bank.model.sentence_bank.embed.weight)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_prompts_are_pooled_by_class(how: str, rng: np.random.Generator) -> None:
    scores, owner = rng.normal(size=(4, 6)), np.array([1, 0, 1, 2, 1, 2])
    found = pool(scores, owner, how)
    for image in range(4):
        for number, columns in enumerate(([1], [0, 2, 4], [3, 5])):
            own = [scores[image, column] for column in columns]
            assert found[image, number] == pytest.approx(max(own) if how == "max" else sum(own) / len(own))


def test_glorias_score_is_standardized_for_each_class(rng: np.random.Generator) -> None:
    cosine, local, owner = rng.uniform(-1, 1, (9, 4)), rng.random((9, 4)), np.array([0, 0, 1, 2])
    pairs = PairScores(14 * cosine, local, 14.0)
    found = gloria_scores(pairs, owner, "max", local_weight=1.0)
    half = (cosine + local) / 2
    joined = np.stack([half[:, :2].max(axis=1), half[:, 2], half[:, 3]], axis=1)
    for number in range(3):
        column = joined[:, number]
        spread = np.sqrt(((column - column.mean()) ** 2).mean())
        np.testing.assert_allclose(found[:, number], (column - column.mean()) / spread, rtol=1e-9)
    constant = PairScores(np.ones((3, 2)), np.ones((3, 2)))
    assert not gloria_scores(constant, np.array([0, 1]), "max", 1.0).any()
    one = PairScores(14 * cosine[:1], local[:1], 14.0)
    np.testing.assert_allclose(gloria_scores(one, owner, "max", 1.0), joined[:1], rtol=1e-9)
