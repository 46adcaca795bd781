"""Resumed runs write the same files as uninterrupted ones, and a folder accepts only the settings it was made with."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prior_fast.downstream import command as command_module
from prior_fast.downstream.tasks.classification import Classification
from prior_fast.training.signals import EXIT_CODE, SIGNALS
from tests.downstream.fake_dataset import write_squares

Evaluate = Callable[..., int]
TASKS = {
    "classification": ["blocks=2", "splits=prior-0,prior-1"],
    "segmentation": ["decoder_channels=8,8,8,8,8", "splits=folds-0"],
    "detection": ["pyramid_channels=16", "head_width=16", "proposals=16", "splits=folds-0"],
}


class StopsAfter:
    """Replaces `StopSignals`: asks to stop at the `number`-th query."""

    cause, exit_code = "a test", EXIT_CODE

    def __init__(self, number: int) -> None:
        self.left = number

    def __enter__(self) -> "StopsAfter":
        return self

    def __exit__(self, *error: Any) -> None: ...

    def asked(self) -> bool:
        self.left -= 1
        return self.left <= 0


def files_of(out: Path) -> dict[str, Any]:
    """The files that a run wrote, without its times and the seals over them."""
    found: dict[str, Any] = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for name in [name for name in found if name.endswith(("metrics.json", "result.json"))]:
        values = json.loads(found[name])
        values.pop("seal", None)
        for split in [values, *values.get("splits", {}).values()]:
            split.pop("seconds", None)
        found[name] = values
    return found


# `StopSignals` is queried before each split and after each step but the last. Classification takes 8 steps, 4 per
# epoch; it stops after steps 2 and 5, between its splits, and after step 1 of the second split. The other tasks take
# 4 steps, 2 per epoch.
@pytest.mark.parametrize(
    "task, stops", [("classification", [3, 4, 4, 3]), ("segmentation", [3, 2]), ("detection", [2, 3])]
)
def test_a_stopped_run_ends_as_an_unbroken_one(
    task: str, stops: list[int], evaluate: Evaluate, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["learning_rate=0.003", "epochs=2", "batch_size=6", "augment=flip", *TASKS[task]]
    assert evaluate(task, squares, tmp_path / "unbroken", *words) == 0
    for number in stops:
        with monkeypatch.context() as patch:
            patch.setattr(command_module, "StopSignals", lambda number=number: StopsAfter(number))
            assert evaluate(task, squares, tmp_path / "broken", *words) == EXIT_CODE
        assert not (tmp_path / "broken" / "metrics.json").exists()
    assert evaluate(task, squares, tmp_path / "broken", *words) == 0
    unbroken, broken = files_of(tmp_path / "unbroken"), files_of(tmp_path / "broken")
    assert unbroken.keys() == broken.keys()
    for name in unbroken:
        assert unbroken[name] == broken[name], name


def test_finished_splits_are_kept_and_more_can_be_added(
    evaluate: Evaluate, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, words = tmp_path / "out", ["epochs=1", "batch_size=12"]
    assert evaluate("classification", squares, out, *words, "splits=prior-0") == 0
    trained: list[int] = []
    step = Classification.loss

    def counted(self: Classification, model: torch.nn.Module, rows: np.ndarray, flips: Any) -> torch.Tensor:
        trained.extend(rows.tolist())
        return step(self, model, rows, flips)

    monkeypatch.setattr(Classification, "loss", counted)
    assert evaluate("classification", squares, out, *words) == 0
    assert sorted(trained) == list(range(12, 36))  # prior-1 alone
    assert json.loads((out / "metrics.json").read_text())["metrics"]["auroc"]["splits"] == 2


def test_a_signal_stops_after_the_step(
    evaluate: Evaluate, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    step = Classification.loss

    def signalled(self: Classification, *args: Any) -> torch.Tensor:
        signal.raise_signal(signal.SIGTERM)
        return step(self, *args)

    words = ["epochs=2", "batch_size=12", "splits=prior-0"]
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Classification, "loss", signalled)
            assert evaluate("classification", squares, tmp_path / "out", *words) == EXIT_CODE
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert "stopped by SIGTERM (exit code 75)" in capsys.readouterr().out
    state = json.loads((tmp_path / "out" / "prior-0" / "state" / "state.json").read_text())
    assert state["step"] == 1 and len(state["losses"]) == 1 and state["history"] == []
    assert evaluate("classification", squares, tmp_path / "out", *words) == 0


def test_ctrl_c_loses_no_more_than_the_epoch(
    evaluate: Evaluate, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["epochs=3", "batch_size=12", "splits=prior-0"]
    steps, step = [], Classification.loss

    def interrupted(self: Classification, *args: Any) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 4:  # two steps an epoch
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Classification, "loss", interrupted)
    assert evaluate("classification", squares, tmp_path / "out", *words) == 130
    assert json.loads((tmp_path / "out" / "prior-0" / "state" / "state.json").read_text())["step"] == 2
    steps[:] = [0] * 10
    assert evaluate("classification", squares, tmp_path / "out", *words) == 0
    assert len(steps) == 10 + 4


def test_a_folder_takes_no_other_settings(
    evaluate: Evaluate, squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = tmp_path / "out", ["epochs=1", "batch_size=12", "splits=prior-0"]
    assert evaluate("classification", squares, out, *words) == 0
    before = files_of(out)
    other = write_squares(tmp_path / "other", [True, False] * 4, {"prior-0": (range(4), range(4, 6), range(6, 8))})
    for data, changed, message in (
        (squares, ["blocks=1"], "was made with blocks=4, not 1"),
        (squares, ["epochs=2"], "was made with epochs=1, not 2"),
        (other, [], "was made with another --data"),
    ):
        assert evaluate("classification", data, out, *words, *changed) == 2
        assert message in capsys.readouterr().err
    assert evaluate("segmentation", squares, out, "splits=folds-0") == 2
    assert "was made with task=classification, not segmentation" in capsys.readouterr().err
    assert files_of(out) == before


def test_a_damaged_state_says_what_to_do(
    evaluate: Evaluate, squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "out" / "prior-0" / "state"
    state.mkdir(parents=True)
    (state / "state.json").write_text("{")
    assert evaluate("classification", squares, tmp_path / "out", "splits=prior-0") == 2
    assert f"{state} can't be read" in capsys.readouterr().err
