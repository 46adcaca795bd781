"""`prior-fast bench pretraining` compares runs that differ only in their starting weights."""

import copy
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from prior_fast.cli.main import main

PRE_TRAINED = {"folds-0": 0.5, "folds-1": 0.4, "folds-2": 0.6}
FRESH = {"folds-0": 0.2, "folds-1": 0.3, "folds-2": 0.1}


def report(weights: str, values: dict[str, float | None], **protocol: Any) -> dict[str, Any]:
    return {
        "task": "segmentation",
        "protocol": {"percent": 1, "weights": weights, "learning_rate": 1e-3, **protocol},
        "checkpoint": {"path": "run", "weights": weights, "preset": "tiny", "stage": 3, "total_steps": 9},
        "data": {"name": "siim", "splits": {name: {"train-1": 5 + i, "train": 500} for i, name in enumerate(values)}},
        "metrics": {"dice_positives": {"values": values}, "mdice": {"values": dict.fromkeys(values, 0.0)}},
    }


def write(folder: Path, name: str, made: dict[str, Any]) -> None:
    (folder / name).mkdir()
    (folder / name / "metrics.json").write_text(json.dumps(made))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write(tmp_path, "siim-checkpoint", report("checkpoint", PRE_TRAINED))
    write(tmp_path, "siim-random", report("random", FRESH))
    return tmp_path


def test_means_spreads_and_gain(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "pretraining", str(runs), "--out", str(runs)]) == 0
    (row,) = json.loads((runs / "pretraining.json").read_text())["rows"]
    gains = [PRE_TRAINED[name] - FRESH[name] for name in PRE_TRAINED]
    assert row["metric"] == "dice_positives" and row["training_images"] == [5, 6, 7]
    for key, values in (("checkpoint", PRE_TRAINED.values()), ("random", FRESH.values()), ("gain", gains)):
        assert row[key]["mean"] == pytest.approx(sum(values) / 3)
        assert row[key]["std"] == pytest.approx(statistics.stdev(values))
    assert row["apart"] is True
    assert "siim" in capsys.readouterr().out
    overlapping = {**FRESH, "folds-2": 0.45}
    (runs / "siim-random/metrics.json").write_text(json.dumps(report("random", overlapping)))
    assert main(["bench", "pretraining", str(runs), "--out", str(runs)]) == 0
    assert json.loads((runs / "pretraining.json").read_text())["rows"][0]["apart"] is False


def test_two_that_differ_in_more_are_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def message(made: dict[str, Any]) -> str:
        (runs / "siim-random/metrics.json").write_text(json.dumps(made))
        assert main(["bench", "pretraining", str(runs)]) == 2
        return capsys.readouterr().err

    assert "the two runs differ in learning_rate: 0.001 and 0.01" in message(
        report("random", FRESH, learning_rate=0.01)
    )
    assert "the weights settings do not match the folders' names" in message(report("checkpoint", FRESH))
    other = copy.deepcopy(report("random", FRESH))
    other["data"]["name"] = "rsna"
    assert "the two runs differ in data" in message(other)
    assert "dice_positives is not defined on the same splits" in message(report("random", {**FRESH, "folds-2": None}))
    (runs / "siim-random/metrics.json").unlink()
    assert main(["bench", "pretraining", str(runs)]) == 2
    assert "can't be read as a result of a fine-tuned task" in capsys.readouterr().err


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "pretraining", str(tmp_path)]) == 2
    assert "has no NAME-checkpoint/metrics.json" in capsys.readouterr().err
