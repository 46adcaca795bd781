"""A random tiny checkpoint, and datasets that it learns in seconds; made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prior_fast.cli.main import main
from tests.downstream.fake_dataset import write_squares
from tests.evaluation.fake_store import write_checkpoint, write_store


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a tiny model with random weights."""
    root = tmp_path_factory.mktemp("run")
    return write_checkpoint(root / "checkpoints", write_store(root / "store"), stage=1)


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images, every second with a square; two splits for each task, and folds with positive images only."""
    positive = [row % 2 == 1 for row in range(48)]
    odd = [row for row in range(48) if row % 2]
    splits = {
        "prior-0": (range(24), range(24, 36), range(36, 48)),
        "prior-1": (range(12, 36), range(36, 48), range(12)),
        "folds-0": (odd[:12], odd[12:18], odd[18:]),
        "folds-1": (odd[6:18], odd[18:], odd[:6]),
        "mixed": (range(24), range(24, 36), range(36, 48)),
    }
    return write_squares(tmp_path_factory.mktemp("data") / "squares", positive, splits)


@pytest.fixture(scope="session")
def evaluate(checkpoint: Path) -> Callable[..., Any]:
    """`evaluate(task, data, out, *words)` -> exit code of the command on a CPU."""

    def run(task: str, data: Path, out: Path, *words: str) -> int:
        paths = ["--checkpoint", str(checkpoint), "--data", str(data), "--out", str(out)]
        return main(["evaluate", task, *paths, "device=cpu", *words])

    return run
