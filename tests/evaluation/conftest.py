"""A small store and random checkpoints, made once."""

from pathlib import Path

import pytest
import torch

from tests.evaluation.fake_store import write_checkpoint, write_store


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="session")
def checkpoint(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of stage 3."""
    return write_checkpoint(tmp_path_factory.mktemp("run") / "checkpoints", store, stage=3)
