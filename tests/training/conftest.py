"""Settings that make a run small enough for a test, with every part of the structure kept; a batch; processes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from prior_fast.batch import PackedBatch
from tests.small_model import SMALL_MODEL
from tests.training.forked import Forked, Group
from tests.training.four_pairs import four_pairs

SMALL = [
    "batch_size=8",
    "stage_epochs=1,1,1",
    "max_steps_per_stage=2",
    "log_every=1",
    "checkpoint_every=100",
    "data.workers=0",
    *SMALL_MODEL,
]


@pytest.fixture
def batch(rng: np.random.Generator) -> PackedBatch:
    return four_pairs(rng)


@pytest.fixture(scope="session")
def small_settings() -> list[str]:
    return list(SMALL)


@pytest.fixture
def fork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Forked]]:
    """Starts processes; those still running are ended with the test."""
    started = []

    def start(words: Sequence[str], **more: Any) -> Forked:
        started.append(Forked(words, tmp_path_factory.mktemp("said"), **more))
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.fixture
def fork_ranks(fork: Callable[..., Forked]) -> Callable[..., list[Forked]]:
    """Starts the ranks of a group."""
    groups = []  # kept until the test ends

    def start(count: int, words: Sequence[str], **more: Any) -> list[Forked]:
        groups.append(Group(count))
        return [fork(words, **groups[-1].environment(rank), **more) for rank in range(count)]

    return start
