"""Data at the edges: one image, parts smaller than a batch, empty parts, one gray level, labels that are all alike.

A task either ends with metrics or says in one line what is missing.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prior_fast.cli.main import main
from tests.downstream.fake_dataset import write_squares
from tests.evaluation.own_store import write_info

Evaluate = Callable[..., int]
TASKS = {
    "classification": ["epochs=1"],
    "segmentation": ["epochs=1", "decoder_channels=8,8,8,8,8"],
    "detection": ["epochs=1", "pyramid_channels=16", "head_width=16", "proposals=16"],
}
# For each dataset: which images have a finding, the parts, and a word of each task's message; None if the task works.
CASES = {
    "one image": ([True], ([0], [0], [0]), ("there is no negative image", None, None)),
    "one negative image": ([False], ([0], [0], [0]), ("has Finding", "has a mask", "has a box")),
    "one of each": ([True, False], ([0, 1], [0], [1]), (None, None, None)),
    "empty validation": ([True, False], ([0, 1], [], [0]), ("validate part of all", "has no image", "has no image")),
    "empty test": ([True, False], ([0, 1], [0], []), ("test part of all", "has no image", "has no image")),
    "empty training": ([True, False], ([], [0], [1]), ("train part of all", "has no image", "has no image")),
    "all positive": ([True] * 6, (range(3), [3], [4, 5]), ("there is no negative image", None, None)),
    "alike in validation": ([True, False] * 3, (range(3), [4], [5]), (None, None, None)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("task", TASKS)
def test_edges(task: str, name: str, evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    positives, parts, messages = CASES[name]
    data = write_squares(tmp_path / "data", positives, {"all": tuple(map(list, parts))})
    message = dict(zip(TASKS, messages, strict=True))[task]
    code = evaluate(task, data, tmp_path / "out", "splits=all", *TASKS[task])
    error = capsys.readouterr().err
    if message is None:
        assert code == 0, error
        assert json.loads((tmp_path / "out" / "metrics.json").read_text())["splits"]["all"]["steps"] == 1
    else:
        assert code == 2 and message in error and error.count("\n") == 1
        assert not (tmp_path / "out").exists()


@pytest.fixture
def gray(tmp_path: Path) -> Path:
    """Images of one gray level, as in a dataset of an earlier version, which was not refused when it was prepared."""
    data = write_squares(tmp_path / "gray", [True, False] * 4, {"all": (range(4), range(4, 6), range(6, 8))})
    images = np.lib.format.open_memmap(data / "images.npy", mode="r+")
    images[:] = 90
    images.flush()
    write_info(data, {"image_mean": 90 / 255, "image_std": 0.0})
    return data


@pytest.mark.parametrize("task", TASKS)
def test_images_of_one_gray_level(
    task: str, gray: Path, evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(task, gray, tmp_path / "out", "splits=all", *TASKS[task]) == 2
    error = capsys.readouterr().err
    assert "image_std is 0" in error and "give normalization=pretraining" in error and error.count("\n") == 1
    assert evaluate(task, gray, tmp_path / "out", "splits=all", "normalization=pretraining", *TASKS[task]) == 0


@pytest.mark.parametrize(
    "name, positives",
    [("one image", [True]), ("one negative", [False]), ("alike", [True] * 3), ("both", [True, False])],
)
def test_zero_shot(
    name: str, positives: list[bool], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(range(len(positives)))
    data = write_squares(tmp_path / "data", positives, {"prior-0": (rows, rows, rows)})
    paths = ["--checkpoint", str(checkpoint), "--data", str(data), "--out", str(tmp_path / "out")]
    code = main(["evaluate", "zero-shot", *paths, "device=cpu"])
    error = capsys.readouterr().err
    if any(positives):
        assert code == 0, error
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]
        assert (metrics["auroc"]["value"] is None) == all(positives)
    else:
        assert code == 2 and "none of the 1 images" in error and error.count("\n") == 1


def test_zero_shot_and_retrieval_of_one_gray_level(
    gray: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = ["--checkpoint", str(checkpoint), "--data", str(gray), "--out", str(tmp_path / "out")]
    assert main(["evaluate", "zero-shot", *paths, "device=cpu", "part_of=all"]) == 0
    assert main(["evaluate", "retrieval", *paths, "device=cpu", "part_of=all"]) == 2
    error = capsys.readouterr().err
    assert "retrieval needs several classes" in error and error.count("\n") == 1
