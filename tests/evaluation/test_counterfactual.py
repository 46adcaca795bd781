"""Errors inside a finding's mask with the true report and with others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation import counterfactual
from prior_fast.evaluation.counterfactual import (
    NOT_STATED,
    NOTHING_LEFT,
    TRUE,
    compare,
    measure_errors,
    report_versions,
    summarize,
)
from prior_fast.evaluation.encode import Encoder
from prior_fast.evaluation.reconstruct import channel_masks, contexts, reconstruct
from prior_fast.radiology.labels import FIVE_CLASSES
from prior_fast.training.checkpoint import open_checkpoint

REPORTS = [
    ["Small right effusion.", "No edema.", "Bones are intact.", "Right effusion, small in size."],
    ["Possible mild edema."],
    ["Left effusion and right effusion.", "Clear."],
    [],
]


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> Encoder:
    return Encoder(open_checkpoint(checkpoint), "cpu")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_versions_of_a_report(rng: np.random.Generator) -> None:
    reason, found = report_versions(REPORTS, 0, "Pleural Effusion", rng)
    assert reason == "" and found[TRUE] == REPORTS[0]
    assert found["without_finding"] == ["No edema.", "Bones are intact."]
    assert found["without_others"] == ["Small right effusion.", "Right effusion, small in size."]
    assert found["sides_swapped"][0] == "Small left effusion." and found["sides_swapped"][1:3] == REPORTS[0][1:3]
    assert found["wrong_report"] in (REPORTS[1], REPORTS[2])


def test_what_cannot_be_compared(rng: np.random.Generator) -> None:
    assert report_versions(REPORTS, 0, "Edema", rng) == (NOT_STATED, {})  # denied is not stated
    assert report_versions(REPORTS, 3, "Edema", rng) == (NOT_STATED, {})
    assert report_versions(REPORTS, 1, "Edema", rng) == (NOTHING_LEFT, {})
    both = report_versions(REPORTS, 2, "Pleural Effusion", rng)[1]
    assert "sides_swapped" not in both and "without_others" in both
    alone = report_versions(REPORTS[:1], 0, "Pleural Effusion", rng)[1]
    assert "wrong_report" not in alone
    more = [["Effusion.", "Effusion again.", "Clear."]]
    assert "without_others" not in report_versions(more, 0, "Pleural Effusion", rng)[1]


def test_compare_perfect_useless_and_equal_errors() -> None:
    low, high = np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0])
    assert compare(low, high)["true_is_better"] == {"value": 1.0, "chance": 0.5}
    assert compare(high, low)["true_is_better"]["value"] == 0
    same = compare(low, low * (1 + 1e-7))
    assert same["true_is_better"]["value"] == 0.5 and same["equal"] == 3
    some = compare(low, np.array([2.0, np.nan, 1.0]))
    assert (some["targets"], some["error_true"], some["error_other"]) == (2, 2, 1.5)
    none = compare(low, np.full(3, np.nan))
    assert none["targets"] == 0 and none["true_is_better"]["value"] is None


def painted(finding: str) -> Any:
    """A decoder that paints the class's square exactly when the report names the finding, and black elsewhere."""

    def paint(encoder: Encoder, patches: torch.Tensor, reports: Sequence[Sequence[str]], *_: object) -> np.ndarray:
        images = np.zeros((len(reports), 224, 224), np.float32)
        x = 40 * FIVE_CLASSES.index(finding)
        for image, report in zip(images, reports):
            image[96:128, x : x + 32] = float(any(finding.lower() in sentence.lower() for sentence in report))
        return images

    return paint


def test_a_decoder_that_draws_what_the_report_says(
    encoder: Encoder, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counterfactual, "reconstruct", painted("Edema"))
    dataset = PreparedDataset.open(store, "test")
    errors = measure_errors(encoder, dataset, np.arange(len(dataset)), seed=0)
    found = summarize(errors)
    assert found["targets"] == found["measured"] == 17 and found["skipped"] == {}
    edema, other = found["findings"]["Edema"], found["findings"]["Atelectasis"]
    # The squares are white: without the sentence the error is 1.
    assert edema["without_finding"]["true_is_better"]["value"] == 1
    assert (edema["without_finding"]["error_true"], edema["without_finding"]["error_other"]) == (0, 1)
    assert edema["without_others"]["true_is_better"]["value"] == 0.5
    assert edema["without_others"]["error_other"] == 0
    # It never draws the others: their errors are equal.
    assert other["without_finding"]["true_is_better"]["value"] == 0.5
    assert edema["sides_swapped"]["targets"] == 0


def test_only_the_drawn_studies_are_measured(encoder: Encoder, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counterfactual, "reconstruct", painted("Edema"))
    dataset = PreparedDataset.open(store, "test")
    errors = measure_errors(encoder, dataset, np.array([0, 4]), seed=0)
    rows = {row for study in (0, 4) for row in dataset.image_rows(study)}
    assert len(errors.targets) == 2 and {target.image_row for target in errors.targets} <= rows


def test_a_report_that_does_not_state_the_finding_is_counted(
    encoder: Encoder, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counterfactual, "reconstruct", painted("Edema"))
    dataset = PreparedDataset.open(store, "test")
    monkeypatch.setattr(
        dataset, "sentences", lambda study: ["Edema is mild ."] if study == 3 else ["Clear .", "Fine ."]
    )
    errors = measure_errors(encoder, dataset, np.arange(len(dataset)), seed=0)
    assert not errors.targets and errors.skipped == {NOT_STATED: 16, NOTHING_LEFT: 1}


def test_masks_depend_on_the_image_and_the_seed_alone(encoder: Encoder) -> None:
    few, many, other = channel_masks(encoder, 3, 5), channel_masks(encoder, 8, 5), channel_masks(encoder, 3, 6)
    assert few is not None and many is not None and other is not None
    assert (few == many[:3]).all() and (few != other).any() and set(few.unique().tolist()) == {0.0, 2.0}
    assert 0.3 < (many == 0).float().mean() < 0.7


@torch.inference_mode()
def test_a_report_without_sentences_has_a_zero_context(encoder: Encoder, store: Path) -> None:
    dataset = PreparedDataset.open(store, "test")
    patches = encoder.images(dataset.images, [0, 1, 2]).patches
    reports = [dataset.sentences(0), [], dataset.sentences(2)]
    found = contexts(encoder, patches, reports)
    assert (found[1] == 0).all() and found[0].abs().max() > 0
    torch.testing.assert_close(found[2:], contexts(encoder, patches[2:], reports[2:]))
    images = reconstruct(encoder, patches, reports)
    assert images.shape == (3, 224, 224) and images.min() >= 0 and images.max() <= 1
    assert reconstruct(encoder, patches[:1], [[]]).shape == (1, 224, 224)


class SmallDecoder(torch.nn.Module):
    """Makes images of 112 x 112 whose left half is darker than their right half."""

    def forward(self, image_map: torch.Tensor, text_map: torch.Tensor) -> torch.Tensor:
        halves = torch.tensor([-0.5, 0.5]).repeat_interleave(56)
        return halves.expand(len(image_map), 1, 112, 112)


def test_smaller_images_of_the_decoder_are_enlarged(checkpoint: Path, store: Path) -> None:
    encoder = Encoder(open_checkpoint(checkpoint), "cpu")
    encoder.model.image_decoder = SmallDecoder()
    patches = encoder.images(PreparedDataset.open(store, "test").images, [0]).patches
    (image,) = reconstruct(encoder, patches, [["Edema is mild ."]])
    assert image.shape == (224, 224)
    mean, deviation = encoder.checkpoint.image_mean, encoder.checkpoint.image_std
    np.testing.assert_allclose(image[:, :110], mean - deviation / 2, atol=1e-6)
    np.testing.assert_allclose(image[:, 114:], mean + deviation / 2, atol=1e-6)
