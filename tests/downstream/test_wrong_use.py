"""Wrong use is reported in one line, before anything is written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.downstream.fake_dataset import write_labels, write_squares

Evaluate = Callable[..., int]


@pytest.mark.parametrize(
    "task, words, message",
    [
        ("classification", ["percent=3"], "percent=3: choose from 1, 10, 100"),
        ("classification", ["splits=prior-9"], "no such split"),
        ("classification", ["classes=Findings"], "did you mean 'Finding'?"),
        ("classification", ["sweep=pools"], "sweep=pools: choose from none, blocks"),
        ("segmentation", ["learning_rat=1"], "unknown setting 'learning_rat': did you mean 'learning_rate'?"),
        ("detection", ["batch_size=0"], "batch_size=0: must be at least 1"),
        ("detection", ["--split", "test"], "unknown argument '--split'"),
    ],
)
def test_settings(
    task: str,
    words: list[str],
    message: str,
    evaluate: Evaluate,
    squares: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(task, squares, tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in which each split lacks something."""
    positive, negative = range(4), range(4, 8)
    splits = {
        "no-positives": (negative, positive, positive),
        "no-negatives": (positive, range(8), range(8)),
        "no-choice": (positive, negative, positive),
        "no-test": (range(8), range(8), ()),
    }
    return write_squares(tmp_path_factory.mktemp("poor") / "data", [True] * 4 + [False] * 4, splits)


@pytest.mark.parametrize(
    "task, split, message",
    [
        ("classification", "no-positives", "none of the 4 images of the training part of no-positives (100 %) has Fin"),
        ("classification", "no-negatives", "all images of the training part of no-negatives (100 %) have Finding"),
        ("classification", "no-test", "the test part of no-test (100 %) has no image"),
        ("segmentation", "no-positives", "has a mask: take a larger percent=... or another of splits=..."),
        ("segmentation", "no-choice", "none of the 4 images of the validation part of no-choice has a mask"),
        ("detection", "no-positives", "has a box: take a larger percent=... or another of splits=..."),
        ("detection", "no-choice", "none of the 4 images of the validation part of no-choice has a box"),
    ],
)
def test_splits_that_lack_something(
    task: str,
    split: str,
    message: str,
    evaluate: Evaluate,
    poor: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(task, poor, tmp_path / "out", f"splits={split}") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_datasets_without_marks(evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_labels(tmp_path / "data", ("A",), np.tile([[0.0], [1.0]], (6, 1)), 6, 3)
    for task, what in (("segmentation", "masks"), ("detection", "boxes")):
        assert evaluate(task, data, tmp_path / "out", "splits=prior-0") == 2
        assert f"has no {what}: {task} needs a dataset with {what}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
@pytest.mark.parametrize("steps", ["max_steps=1", "epochs=2"])
def test_a_loss_or_a_network_that_is_not_finite(
    task: str, steps: str, evaluate: Evaluate, squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"segmentation": ["decoder_channels=8,8,8,8,8"], "detection": ["pyramid_channels=16", "head_width=16"]}
    words = ["learning_rate=1e37", steps, "batch_size=12", "splits=prior-0", *small.get(task, [])]
    assert evaluate(task, squares, tmp_path / "out", *words) == 1
    error = capsys.readouterr().err
    assert "a lower learning_rate=... and another --out" in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "prior-0" / "state").exists()
    assert not (tmp_path / "out" / "prior-0" / "result.json").exists()
