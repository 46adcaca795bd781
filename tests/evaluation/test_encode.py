"""Encoding: batches, cutting, normalization, the bank's temperature."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from prior_fast.data.loader import evaluation_batches
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation.encode import Encoder, first_image_rows
from prior_fast.training.checkpoint import Checkpoint, open_checkpoint
from prior_fast.training.distributed import choose_device


@pytest.fixture(scope="module")
def opened(checkpoint: Path) -> Checkpoint:
    return open_checkpoint(checkpoint)


@torch.inference_mode()
def test_same_as_the_training_path_without_noise(store: Path, opened: Checkpoint) -> None:
    dataset, encoder = PreparedDataset.open(store, "test"), Encoder(opened, "cpu")
    batch = next(evaluation_batches(dataset, len(dataset), opened.config.data.max_tokens))
    rows = first_image_rows(dataset, np.arange(len(dataset)))
    np.testing.assert_array_equal(rows, batch.image_rows)
    images = encoder.images(dataset.images, rows)
    wanted = encoder.model.encode_images(batch.images)
    torch.testing.assert_close(images.whole, wanted.whole, rtol=1e-4, atol=1e-5)
    texts = encoder.texts([dataset.sentences(study) for study in range(len(dataset))])
    torch.testing.assert_close(texts.sentences, encoder.model.encode_sentences(batch), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(texts.cu_sentences, batch.cu_sentences)


@torch.inference_mode()
def test_the_bank_is_read_without_gumbel_noise(opened: Checkpoint) -> None:
    """A plain softmax of the inner products at the checkpoint's temperature, the same in every call."""
    encoder = Encoder(opened, "cpu")
    texts = [["No pleural effusion .", "The heart is normal ."], ["Small left effusion ."]]
    first, second = encoder.texts(texts), encoder.texts(texts)
    assert torch.equal(first.prototypes, second.prototypes)
    prototypes = encoder.model.sentence_bank.embed.weight.double()
    logits = first.sentences.double() @ prototypes.T / opened.tau
    wanted = torch.softmax(logits, dim=1) @ prototypes
    torch.testing.assert_close(first.prototypes.double(), wanted, rtol=1e-4, atol=1e-5)


def test_the_batch_size_changes_nothing(store: Path, opened: Checkpoint) -> None:
    dataset = PreparedDataset.open(store, "test")
    rows, reports = first_image_rows(dataset, np.arange(7)), [dataset.sentences(study) for study in range(7)]
    small, large = Encoder(opened, "cpu", batch_size=2), Encoder(opened, "cpu", batch_size=7)
    for a, b in (
        (small.images(dataset.images, rows).patches, large.images(dataset.images, rows).patches),
        (small.texts(reports).reports, large.texts(reports).reports),
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_images_are_normalized_with_the_checkpoints_numbers(store: Path, opened: Checkpoint) -> None:
    changed = dataclasses.replace(opened, image_mean=0.25, image_std=0.5)
    pixels = np.full((1, 224, 224), 255, np.uint8)
    torch.testing.assert_close(Encoder(changed, "cpu").normalized(pixels), torch.full((1, 1, 224, 224), 1.5))


def test_a_long_report_is_cut_and_counted(opened: Checkpoint) -> None:
    encoder = Encoder(opened, "cpu")
    sentence = "A small right pleural effusion is present ."
    texts = encoder.texts([[sentence] * 200, [sentence]])
    assert texts.cut == 1
    length = len(encoder.tokenizer(sentence, add_special_tokens=False)["input_ids"])
    assert texts.cu_sentences.diff().tolist() == [(opened.config.data.max_tokens - 2) // length, 1]


def test_sentences_without_a_token_are_left_out(opened: Checkpoint) -> None:
    encoder = Encoder(opened, "cpu")
    assert encoder.texts([["Edema .", " ", ""]]).cu_sentences.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"texts\[1\] has no token"):
        encoder.texts([["Edema ."], [" "]])


def test_a_missing_gpu_is_told() -> None:
    if torch.cuda.is_available():
        assert choose_device("cuda").type == "cuda"
    else:
        with pytest.raises(UsageError, match="device=cuda"):
            choose_device("cuda")
        assert choose_device("auto").type == "cpu"
