"""The progress of fine-tuning names its phases, and moves in each of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.progress import TaskID

from prior_fast.console.log import LogBar
from tests.downstream.test_going_on import TASKS

Evaluate = Callable[..., int]


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
def test_validation_and_test_are_named_and_move(
    task: str, evaluate: Evaluate, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    parts: dict[str, list[float]] = {}
    names: dict[TaskID, str] = {}
    add_task, advance = LogBar.add_task, LogBar.advance

    def added(self: LogBar, description: str, *args: Any, **options: Any) -> TaskID:
        number = add_task(self, description, *args, **options)
        names[number] = description
        shown.append(description)
        return number

    def advanced(self: LogBar, number: TaskID, done: float = 1) -> None:
        parts.setdefault(names[number], []).append(done)
        advance(self, number, done)

    monkeypatch.setattr(LogBar, "add_task", added)
    monkeypatch.setattr(LogBar, "advance", advanced)
    words = [word for word in TASKS[task] if not word.startswith("splits=")]
    split = TASKS[task][-1].partition("=")[2].split(",")[0]
    assert evaluate(task, squares, tmp_path / "out", *words, "epochs=1", "batch_size=5", f"splits={split}") == 0
    phases = [name for name in shown if name.startswith(split) and not name.endswith("its state")]
    assert phases == [
        split,
        *(f"{split} validation", f"{split} validation: metrics"),
        *(f"{split} test", f"{split} test: metrics", f"{split} test: writing predictions, weights and a picture"),
    ]
    images = {"prior-0": 12, "folds-0": 6}[split]
    for part in ("validation", "test"):
        moved = parts[f"{split} {part}"]
        assert sum(moved) == images and len(moved) == -(-images // 5)
