"""When checkpoints are due."""

from dataclasses import replace
from pathlib import Path

import pytest

from prior_fast.cli.main import main
from prior_fast.config import preset
from prior_fast.training import run as training_run
from prior_fast.training.checkpoint import list_checkpoints
from prior_fast.training.saving import Saving


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_one_comes_after_a_minute_and_others_by_the_setting() -> None:
    clock = Clock()
    saving = Saving(replace(preset("paper"), checkpoint_minutes=10.0), 0, clock)
    clock.now += 59.9
    assert not saving.due(500)
    clock.now += 0.1
    assert saving.due(501)
    saving.done(501)
    assert saving.saved_at == 501
    clock.now += 599
    assert not saving.due(1000)
    clock.now += 1
    assert saving.due(1001)


def test_a_shorter_time_than_a_minute_holds_from_the_start() -> None:
    clock = Clock()
    saving = Saving(replace(preset("paper"), checkpoint_minutes=0.1), 0, clock)
    clock.now += 6
    assert saving.due(1)


@pytest.mark.parametrize("every", [0, 3])
def test_without_minutes_only_steps_count(every: int) -> None:
    clock = Clock()
    saving = Saving(replace(preset("paper"), checkpoint_minutes=0.0, checkpoint_every=every), 0, clock)
    clock.now += 1e9
    assert [step for step in range(1, 8) if saving.due(step)] == ([3, 6] if every else [])


def test_a_run_saves_by_time(
    small_store: Path, small_settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock is 25 s after the last: one checkpoint after a minute, the next ones after 50 s."""
    clock = Clock()

    def ticking() -> float:
        clock.now += 25
        return clock.now

    monkeypatch.setattr(training_run, "Saving", lambda config, saved_at: Saving(config, saved_at, ticking))
    settings = ["stage_epochs=3,0,0", "max_steps_per_stage=10", "checkpoint_every=0", "keep_checkpoints=99"]
    words = ["train", "--preset", "tiny", "--data", str(small_store), "--out", str(tmp_path / "run"), *small_settings]
    assert main([*words, *settings, "checkpoint_minutes=1.5", "model.bank.init=gaussian"]) == 0
    steps = [int(path.name[5:]) for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    # 25 s at the start of each span, then 25 s a step: three looks make 75 s, four 100 s.
    assert steps == [3, 7, 10]


@pytest.mark.parametrize("word", ["checkpoint_minutes=-1", "checkpoint_every=-1"])
def test_less_than_nothing_is_refused(word: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "run"), word]) == 2
    assert word.split("=")[0] in capsys.readouterr().err
