"""The metrics against scikit-learn, torchmetrics and computations by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss, roc_auc_score
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.functional.segmentation import dice_score

from prior_fast.downstream.metrics.boxes import box_metrics
from prior_fast.downstream.metrics.dice import dice_metrics, image_dice
from prior_fast.downstream.metrics.multilabel import multilabel_metrics
from prior_fast.downstream.summary import over_splits


def test_classification_equals_scikit_learn(rng: np.random.Generator) -> None:
    truth = rng.random((200, 3)) < (0.1, 0.5, 0.8)
    logits = (rng.normal(size=(200, 3)) + truth).astype(np.float32)
    logits[::7] = np.round(logits[::7])  # equal scores
    values = multilabel_metrics(truth, logits, ["a", "b", "c"]).values
    assert values["auroc"] == pytest.approx(roc_auc_score(truth, logits, average="macro"))
    assert values["f1_at_0.5"] == pytest.approx(f1_score(truth, logits >= 0, average="macro"))
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert values["loss"] == pytest.approx(np.mean([log_loss(t, p) for t, p in zip(truth.T, probabilities.T)]))
    assert values["accuracy_at_0.5"] == pytest.approx(np.mean((probabilities >= 0.5) == truth))
    for index, name in enumerate("abc"):
        assert values[f"auroc/{name}"] == pytest.approx(roc_auc_score(truth[:, index], logits[:, index]))


def test_a_class_of_one_kind_is_undefined_and_left_out(rng: np.random.Generator) -> None:
    truth = np.stack([np.arange(20) % 2 == 0, np.zeros(20, bool), np.ones(20, bool)], axis=1)
    logits = rng.normal(size=(20, 3))
    measured = multilabel_metrics(truth, logits, ["both", "never", "always"])
    assert measured.values["auroc"] == pytest.approx(roc_auc_score(truth[:, 0], logits[:, 0]))
    assert measured.values["auroc/never"] is None and measured.values["auroc/always"] is None
    assert measured.notes["auroc"] == "over 1 of 3 classes: undefined for never, always"
    assert measured.notes["auroc/never"] == "no positive image of never"
    assert measured.notes["auroc/always"] == "no negative image of always"
    assert measured.values["f1_at_0.5/never"] is None and measured.values["f1_at_0.5/always"] is not None
    assert measured.notes["f1_at_0.5"] == "over 2 of 3 classes: undefined for never"
    nothing = multilabel_metrics(truth[:, 1:], logits[:, 1:], ["never", "always"])
    assert nothing.values["auroc"] is None and nothing.values["loss"] is not None


def _counts(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    masks = (predicted & true, predicted, true)
    return np.stack([mask.reshape(len(mask), -1).sum(axis=1) for mask in masks], axis=1).astype(np.int64)


@pytest.mark.filterwarnings("ignore:dice_score metric currently defaults")
def test_dice_equals_torchmetrics_and_hand_computation(rng: np.random.Generator) -> None:
    true = rng.random((6, 224, 224)) < rng.random((6, 1, 1))
    predicted = rng.random((6, 224, 224)) < rng.random((6, 1, 1))
    true[4:] = False
    predicted[5] = False
    counts = _counts(predicted, true)
    values = dice_metrics(counts).values
    tensors = [torch.from_numpy(masks[:4, None]).long() for masks in (predicted, true)]
    expected = dice_score(*tensors, num_classes=1, average="micro", input_format="one-hot")
    assert image_dice(counts)[:4] == pytest.approx(expected.numpy().ravel(), abs=1e-6)
    assert values["dice_positives"] == pytest.approx(float(expected.mean()), abs=1e-6)
    # Of the two images without a mask, one prediction is empty and one is not.
    assert values["dice_all"] == pytest.approx((float(expected.sum()) + 0 + 1) / 6, abs=1e-6)
    assert values["empty_right"] == 0.5
    sides = [2 * (p & t).sum() / (p.sum() + t.sum()) for p, t in ((predicted, true), (~predicted, ~true))]
    assert values["mdice"] == pytest.approx(np.mean(sides))


def test_dice_without_masks_or_without_empty_images() -> None:
    measured = dice_metrics(np.array([[0, 0, 0], [0, 0, 0]]))
    assert measured.values == {"dice_positives": None, "dice_all": 1.0, "mdice": None, "empty_right": 1.0}
    assert set(measured.notes) == {"dice_positives", "mdice"}
    measured = dice_metrics(np.array([[5, 10, 10]]))
    assert measured.values["dice_positives"] == measured.values["dice_all"] == 0.5
    assert measured.values["empty_right"] is None and "empty_right" in measured.notes


def test_box_ranges_are_means_over_single_thresholds(rng: np.random.Generator) -> None:
    truth, found = [], []
    for index in range(12):
        corners = rng.uniform(0, 120, (index % 3, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(40, 100, (len(corners), 2))], axis=1)
        guesses = np.concatenate([boxes + rng.normal(0, 8, boxes.shape), [[5.0, 5.0, 50.0, 60.0]]])
        truth.append(torch.from_numpy(boxes).float().reshape(-1, 4))
        found.append({"boxes": torch.from_numpy(guesses).float(), "scores": torch.from_numpy(rng.random(len(guesses)))})
    values = box_metrics(found, truth).values

    def precision(threshold: float) -> float:
        metric = MeanAveragePrecision(iou_thresholds=[threshold])
        predicted = [{**each, "labels": torch.zeros(len(each["scores"]), dtype=torch.long)} for each in found]
        metric.update(predicted, [{"boxes": b, "labels": torch.zeros(len(b), dtype=torch.long)} for b in truth])
        return float(metric.compute()["map"])

    at = {threshold: precision(threshold / 100) for threshold in range(40, 100, 5)}
    assert 0 < values["map_50_95"] < values["map_40_75"] < 1
    assert values["map_50_95"] == pytest.approx(np.mean([at[t] for t in range(50, 100, 5)]), abs=1e-6)
    assert values["map_40_75"] == pytest.approx(np.mean([at[t] for t in range(40, 80, 5)]), abs=1e-6)
    assert values["ap_50"] == pytest.approx(at[50], abs=1e-6)


def test_average_precision_by_hand() -> None:
    box = torch.tensor([[10.0, 10, 50, 50]])
    right, wrong = {"boxes": box, "scores": torch.tensor([0.6])}, {"boxes": box + 100, "scores": torch.tensor([0.9])}
    # A false box in an image without boxes has the highest score: precision is 1/2 when the true box is found.
    values = box_metrics([right, wrong], [box, torch.zeros(0, 4)]).values
    assert values == {"map_50_95": pytest.approx(0.5), "map_40_75": pytest.approx(0.5), "ap_50": pytest.approx(0.5)}
    measured = box_metrics([wrong], [torch.zeros(0, 4)])
    assert set(measured.values.values()) == {None} and measured.notes["map_50_95"] == "no image with a box"


def test_over_splits() -> None:
    found = over_splits({"a": {"x": 1.0, "y": None}, "b": {"x": 2.0, "y": 3.0}, "c": {"x": 4.0, "y": None}})
    assert found["x"]["mean"] == pytest.approx(7 / 3) and found["x"]["std"] == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert found["y"]["mean"] == 3.0 and found["y"]["std"] is None and found["y"]["splits"] == 1
    assert found["y"]["note"] == "undefined in a, c" and found["y"]["values"]["a"] is None
