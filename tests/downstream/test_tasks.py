"""Each task from its command to its files, on datasets that it learns in seconds."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.metrics import roc_auc_score

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.results import read_log
from prior_fast.model.stem_conv import StemConv2d
from tests.downstream.fake_dataset import write_labels

Evaluate = Callable[..., int]
PNG = b"\x89PNG"


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_classification_learns(
    evaluate: Evaluate, squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["learning_rate=0.001", "epochs=3", "batch_size=8", "augment=flip"]
    assert evaluate("classification", squares, tmp_path / "out", *words) == 0
    metrics = read(tmp_path / "out" / "metrics.json")
    auroc = metrics["metrics"]["auroc"]
    assert auroc["mean"] >= 0.95 and auroc["std"] is not None and list(auroc["values"]) == ["prior-0", "prior-1"]
    assert metrics["protocol"]["learning_rate_epochs_batch_size"] == "settings of the command"
    assert metrics["protocol"]["classes"] == ["Finding"] and metrics["checkpoint"]["preset"] == "tiny"
    assert metrics["data"]["splits"]["prior-0"]["validate"] == 12
    for split in ("prior-0", "prior-1"):
        folder = tmp_path / "out" / split
        rows = read_csv(folder / "predictions.csv")
        truth, scores = ([float(row[f"{kind} Finding"]) for row in rows] for kind in ("true", "probability"))
        assert len(rows) == 12 and roc_auc_score(truth, scores) == pytest.approx(auroc["values"][split])
        log = read_log(folder / "log.jsonl")
        assert [line["step"] for line in log] == [3, 6, 9] and log[-1]["loss"] < log[0]["loss"]
        found = metrics["splits"][split]
        values = [line["validate"]["auroc"] for line in log]
        assert found["best_epoch"] == 1 + int(np.argmax(values)) and found["validate"]["auroc"] == max(values)
        assert "head.weight" in safetensors.torch.load_file(folder / "model.safetensors")
        assert (folder / "roc.png").read_bytes()[:4] == PNG and not (folder / "state").exists()
    assert (tmp_path / "out" / "curves.png").read_bytes()[:4] == PNG
    shown = capsys.readouterr().out
    assert "auroc/Finding" in shown and "100 % of the training images" in shown


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
@pytest.mark.parametrize("normalization", ["dataset", "pretraining"])
def test_images_are_normalized_by_the_dataset_or_as_in_pretraining(
    task: str, normalization: str, evaluate: Evaluate, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stem sees the images less the mean, over the standard deviation, that the protocol names."""
    seen: list[torch.Tensor] = []
    plain = StemConv2d.forward

    def watched(self: StemConv2d, x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach().clone())
        return plain(self, x)

    monkeypatch.setattr(StemConv2d, "forward", watched)
    split = "prior-0" if task == "classification" else "folds-0"
    sizes = {
        "segmentation": ["decoder_channels=32,16,8,8,8"],
        "detection": ["pyramid_channels=8", "head_width=16", "proposals=8"],
    }
    words = ["max_steps=1", "batch_size=4", f"splits={split}", f"normalization={normalization}", *sizes.get(task, [])]
    assert evaluate(task, squares, tmp_path / "out", *words) == 0
    protocol = read(tmp_path / "out" / "metrics.json")["protocol"]
    dataset = LabelledDataset.open(squares)
    of_dataset = (protocol["image_mean"], protocol["image_std"]) == (dataset.image_mean, dataset.image_std)
    assert of_dataset == (normalization == "dataset")
    # The inverse of the normalization gives 8-bit pixels again, averaged over 2 x 2 squares by the tiny encoder.
    levels = (torch.cat(seen) * protocol["image_std"] + protocol["image_mean"]) * 255 * 4
    assert (levels - levels.round()).abs().max() < 0.05 and levels.max() > 4 * 180 and levels.min() >= -0.05


def test_segmentation_learns(evaluate: Evaluate, squares: Path, tmp_path: Path) -> None:
    words = ["learning_rate=0.01", "epochs=5", "batch_size=2", "decoder_channels=32,16,8,8,8", "splits=folds-0"]
    assert evaluate("segmentation", squares, tmp_path / "out", *words) == 0
    metrics = read(tmp_path / "out" / "metrics.json")["metrics"]
    assert metrics["dice_positives"]["mean"] >= 0.8 and metrics["mdice"]["mean"] >= 0.85
    assert metrics["dice_positives"] == metrics["dice_all"] and metrics["empty_right"]["mean"] is None
    rows = read_csv(tmp_path / "out" / "folds-0" / "predictions.csv")
    for row in rows:
        both, predicted, true = (int(row[f"pixels_{name}"]) for name in ("in_both", "predicted", "true"))
        assert true == 64 * 64 and float(row["dice"]) == pytest.approx(2 * both / (predicted + true), abs=1e-6)
    assert np.mean([float(row["dice"]) for row in rows]) == pytest.approx(metrics["dice_positives"]["mean"], abs=1e-6)
    assert (tmp_path / "out" / "folds-0" / "masks.png").read_bytes()[:4] == PNG


def test_detection_learns_with_images_without_boxes(evaluate: Evaluate, squares: Path, tmp_path: Path) -> None:
    words = ["learning_rate=0.001", "epochs=4", "batch_size=3", "schedule=constant", "splits=mixed"]
    words += ["normalization=pretraining"]
    sizes = ["pyramid_channels=32", "head_width=64", "proposals=32"]
    assert evaluate("detection", squares, tmp_path / "out", *words, *sizes) == 0
    metrics = read(tmp_path / "out" / "metrics.json")["metrics"]
    assert metrics["ap_50"]["mean"] >= 0.6
    assert metrics["map_50_95"]["mean"] <= metrics["map_40_75"]["mean"] <= 1
    rows = read_csv(tmp_path / "out" / "mixed" / "predictions.csv")
    best = max(rows, key=lambda row: float(row["score"]))
    assert 40 < float(best["width"]) < 90 and 40 < float(best["height"]) < 90
    assert (tmp_path / "out" / "mixed" / "boxes.png").read_bytes()[:4] == PNG


@pytest.mark.parametrize(
    "task, words",
    [
        ("classification", ["pool=attention"]),
        ("segmentation", ["decoder_channels=8,8,8,8,8"]),
        ("detection", ["pyramid_channels=16", "head_width=16", "proposals=16"]),
    ],
)
def test_bfloat16(task: str, words: list[str], evaluate: Evaluate, squares: Path, tmp_path: Path) -> None:
    common = ["precision=bf16", "max_steps=1", "batch_size=6", "splits=mixed"]
    assert evaluate(task, squares, tmp_path / "out", *common, *words) == 0
    values = read(tmp_path / "out" / "metrics.json")["metrics"].values()
    assert all(value["mean"] is None or np.isfinite(value["mean"]) for value in values)
    if task == "detection":
        # bfloat16 has 8 bits of precision: between 128 and 256 it represents only integers.
        ends = [
            float(row["x"]) + float(row["width"]) for row in read_csv(tmp_path / "out" / "mixed" / "predictions.csv")
        ]
        assert any(128 < end < 224 and abs(end - round(end)) > 0.1 for end in ends)


def test_only_segmentation_needs_its_library(
    evaluate: Evaluate,
    squares: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    for name in ("tasks.segmentation", "tasks.classification", "splits", "sweep"):
        monkeypatch.delitem(sys.modules, f"prior_fast.downstream.{name}", raising=False)
    assert evaluate("segmentation", squares, tmp_path / "out") == 1
    assert "segmentation needs the Python package segmentation_models_pytorch" in capsys.readouterr().err
    assert evaluate("classification", squares, tmp_path / "out", "max_steps=1", "splits=prior-0") == 0


def test_the_sweep_has_a_point_for_each_number_of_blocks(evaluate: Evaluate, squares: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "out", ["sweep=blocks", "epochs=1", "batch_size=12", "percent=10", "splits=prior-0"]
    assert evaluate("classification", squares, out, *words) == 0
    swept = read(out / "sweep.json")
    assert [point["blocks"] for point in swept["points"]] == [0, 1, 2, 3]
    for point in swept["points"]:
        alone = read(out / f"blocks-{point['blocks']}" / "metrics.json")
        assert alone["metrics"]["auroc"]["mean"] == point["mean"] and alone["protocol"]["blocks"] == point["blocks"]
        assert alone["splits"]["prior-0"]["images"] == {"train": 4, "validate": 12, "test": 12}
    assert (out / "sweep.png").read_bytes()[:4] == PNG


def test_random_weights_are_another_start(evaluate: Evaluate, squares: Path, tmp_path: Path) -> None:
    words = ["blocks=0", "max_steps=1", "splits=prior-0", "seed=7"]
    weights = {}
    for kind in ("checkpoint", "random"):
        assert evaluate("classification", squares, tmp_path / kind, f"weights={kind}", *words) == 0
        weights[kind] = safetensors.torch.load_file(tmp_path / kind / "prior-0" / "model.safetensors")
    stem = [weights[kind]["encoder.conv1.weight"] for kind in ("checkpoint", "random")]
    assert not (stem[0] == stem[1]).any()


def test_an_undefined_auroc_leaves_the_choice_to_the_loss(evaluate: Evaluate, tmp_path: Path) -> None:
    # Validation rows 8 to 11 are all positive in A and negative in B; B is positive in no test image.
    labels = np.zeros((16, 2))
    labels[::2, 0] = labels[1:8:2, 1] = labels[8:12, 0] = 1
    data = write_labels(tmp_path / "data", ("A", "B"), labels, 8, 4)
    assert evaluate("classification", data, tmp_path / "out", "epochs=3", "batch_size=4", "learning_rate=0.001") == 0
    metrics = read(tmp_path / "out" / "metrics.json")
    assert metrics["metrics"]["auroc/B"]["mean"] is None and metrics["metrics"]["auroc/B"]["note"]
    assert metrics["metrics"]["auroc"]["mean"] == metrics["metrics"]["auroc/A"]["mean"]
    found = metrics["splits"]["prior-0"]
    assert found["undefined"]["auroc"] == "over 1 of 2 classes: undefined for B"
    assert "auroc is undefined on the validation part: chosen by its lowest loss" in found["notes"]
    losses = [line["validate"]["loss"] for line in read_log(tmp_path / "out" / "prior-0" / "log.jsonl")]
    assert found["best_epoch"] == 1 + int(np.argmin(losses))


def test_validation_every_few_epochs_and_after_the_last(evaluate: Evaluate, squares: Path, tmp_path: Path) -> None:
    words = ["splits=prior-0", "batch_size=12", "learning_rate=1e-3", "epochs=5"]
    assert evaluate("classification", squares, tmp_path / "each", *words) == 0
    assert evaluate("classification", squares, tmp_path / "some", *words, "validate_every=2") == 0
    each, some = (
        [json.loads(line) for line in (tmp_path / name / "prior-0/log.jsonl").read_text().splitlines()]
        for name in ("each", "some")
    )
    assert [line["epoch"] for line in some] == [2, 4, 5]
    # Validation does not change training; the loss of a log line is the mean since the previous line.
    for line in some:
        assert line["validate"] == each[line["epoch"] - 1]["validate"]
    assert some[0]["loss"] == pytest.approx((each[0]["loss"] + each[1]["loss"]) / 2)
