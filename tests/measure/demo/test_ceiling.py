"""`prior-fast bench ceiling` trains the image encoder with labels, and ranks reports by their labels' likelihood."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from prior_fast.cli.main import main
from prior_fast.config import apply_overrides, preset
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.evaluation.config import EvaluationConfig
from prior_fast.evaluation.evaluation_source import prepared_source
from prior_fast.evaluation.selection import choose
from prior_fast.measure.demo.ceiling import log_likelihood, measure
from prior_fast.measure.demo.labelled_training import (
    FINDINGS,
    LEARNING_RATE,
    WARM_UP,
    findings_shown,
    learning_rate,
    train_with_labels,
)
from prior_fast.radiology.labels import CHEXPERT_LABELS
from tests.evaluation.fake_store import write_store

CPU = torch.device("cpu")
SMALL = ("model.image.width=8", "model.image.shrink=4", "model.image.depths=1,1", "model.image.pool_heads=2")
WORDS = (*SMALL, "precision=fp32", "batch_size=8", "data.workers=0", "device=cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("data") / "store", per_class=4, train=16)


def run(store: Path, out: Path, *words: str) -> int:
    return main(["bench", "ceiling", "--data", str(store), "--out", str(out), *WORDS, *words])


def test_the_file_has_settings_and_every_figure_beside_chance(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ceiling.json"
    assert run(store, out, "--epochs", "2") == 0
    report = json.loads(out.read_text())
    assert report["kind"] == "ceiling"
    assert report["settings"]["steps"] == 4 and report["settings"]["epochs"] == 2 and report["settings"]["like"] is None
    assert report["settings"]["changed"] == list(WORDS) and report["settings"]["seconds"] >= 0
    # The images of one class alone: 4 of each.
    assert report["data"]["split"] == "test" and report["data"]["selected"] == 20
    found = report["metrics"]
    assert found["accuracy"]["chance"] == 0.2 and 0 <= found["accuracy"]["value"] <= 1
    assert all(value["chance"] == 0.5 for value in found["auroc"].values()) and len(found["auroc"]) == 5
    for value in found["precision_at_5"].values():
        assert value["chance"] == pytest.approx(0.2) and 0 <= value["value"] <= 1
    assert "trained with labels: 4 steps" in capsys.readouterr().out


def test_the_same_command_gives_the_same_figures(store: Path, tmp_path: Path) -> None:
    for name in "ab":
        assert run(store, tmp_path / name, "--epochs", "1") == 0
    first, again = (json.loads((tmp_path / name).read_text()) for name in "ab")
    assert first["metrics"] == again["metrics"]


def test_the_findings_of_the_training_images_are_learned(store: Path) -> None:
    config = apply_overrides(preset("tiny"), WORDS)
    dataset = PreparedDataset.open(store, "train")
    losses = []
    for epochs in (1, 30):
        trained = train_with_labels(config, dataset, CPU, epochs)
        assert trained.steps == 2 * epochs and not trained.model.training
        pixels = torch.from_numpy(np.array(dataset.images[dataset.image_begin])).float() / 255
        images = ((pixels - dataset.image_mean) / dataset.image_std)[:, None]
        with torch.inference_mode():
            logits = trained.model(images)
        truth = torch.from_numpy(findings_shown(dataset.labels)).float()
        losses.append(float(torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)))
    assert losses[1] < 0.5 * losses[0]


def test_the_time_of_a_run_is_kept(store: Path) -> None:
    config = apply_overrides(preset("tiny"), WORDS)
    dataset = PreparedDataset.open(store, "train")
    ticks = iter(range(1000))
    # Each step takes one second by this clock.
    trained = train_with_labels(config, dataset, CPU, seconds=31.0, clock=lambda: float(next(ticks)))
    assert trained.steps == 31 and trained.seconds == 31.0 and trained.epochs == 15.5


def test_a_slow_start_does_not_shorten_the_training(store: Path) -> None:
    config = apply_overrides(preset("tiny"), WORDS)
    dataset = PreparedDataset.open(store, "train")
    # 4 steps of 5 seconds, then each takes one.
    marks = iter([0.0, 5.0, 10.0, 15.0, 20.0, *range(21, 100)])
    shares: list[float] = []
    trained = train_with_labels(
        config, dataset, CPU, seconds=30.5, clock=lambda: float(next(marks)), advance=shares.append
    )
    assert trained.steps == 15 and trained.seconds == 31.0
    assert shares == pytest.approx([5 / 30.5, 10 / 30.5, 15 / 30.5, *(n / 30.5 for n in range(20, 31)), 1.0])


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    assert learning_rate(0, 0.0) == pytest.approx(LEARNING_RATE / WARM_UP)
    assert learning_rate(WARM_UP - 1, 0.0) == LEARNING_RATE
    assert learning_rate(500, 0.5) == pytest.approx(LEARNING_RATE / 2)
    assert learning_rate(999, 0.999) < 1e-5 * LEARNING_RATE


def test_the_likelihood_of_a_report_is_that_of_its_labels() -> None:
    logits = np.array([[0.0, math.log(3.0)], [math.log(4.0), -100.0]])
    labels = np.array([[True, True], [True, False], [False, False]])
    expected = np.log([[0.5 * 0.75, 0.5 * 0.25, 0.5 * 0.25], [0.8 * math.exp(-100), 0.8, 0.2]])
    assert log_likelihood(logits, labels) == pytest.approx(expected)


def test_perfect_logits_reach_one_and_useless_ones_chance(store: Path) -> None:
    chosen = choose(prepared_source(PreparedDataset.open(store, "test")), EvaluationConfig(), 200)
    shown = findings_shown(chosen.source.labels[chosen.selection.positions])
    logits = np.where(shown, 10.0, -10.0)
    # In this dataset an absent cardiomegaly is uncertain, which counts as shown: the true class is more certain.
    logits[np.arange(len(chosen)), chosen.truth] = 20.0
    best = measure(logits, chosen)
    assert best["accuracy"]["value"] == 1 and all(value["value"] == 1 for value in best["auroc"].values())
    # 4 of the 20 candidates are of the query's class.
    assert [value["value"] for value in best["precision_at_5"].values()] == [pytest.approx(0.8)] * 2
    useless = measure(np.zeros((len(chosen), len(FINDINGS))), chosen)
    for value in useless["precision_at_5"].values():
        assert value["value"] == pytest.approx(value["chance"]) == pytest.approx(0.2)


def test_uncertain_findings_count_as_shown_and_blank_ones_as_absent() -> None:
    labels = np.full((1, len(CHEXPERT_LABELS)), np.nan, np.float32)
    for name, value in (("Cardiomegaly", -1), ("Edema", 1), ("Pneumothorax", 0), ("Fracture", 1)):
        labels[0, CHEXPERT_LABELS.index(name)] = value
    assert [name for name, there in zip(FINDINGS, findings_shown(labels)[0]) if there] == ["Cardiomegaly", "Edema"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --like RUN, whose training time is taken, or --epochs N"),
        (["--epochs", "2", "--like", "run"], "give either --like RUN"),
        (["--epochs", "-1"], "--epochs -1: must be at least 1"),
        (["--like", "nowhere"], "--like nowhere: nowhere/metrics.json can't be read"),
        (["--epochs", "1", "batch_size=100"], "batch_size=100 is more than the 16 studies"),
        (["--epochs", "1", "--preset", "tony"], "no preset 'tony'"),
        (["--epochs", "1", "batchsize=3"], "unknown setting 'batchsize'"),
    ],
)
def test_wrong_use_is_one_line(
    words: list[str], message: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(store, tmp_path / "out.json", *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out.json").exists()


def test_an_unfinished_run_is_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"finished": False, "seconds": 3.0}))
    assert run(store, tmp_path / "out.json", "--like", str(tmp_path)) == 2
    assert "the run is not finished" in capsys.readouterr().err
