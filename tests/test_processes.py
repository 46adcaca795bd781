"""Worker processes leave the signals of a terminal and of a scheduler to their parent."""

import os
import signal

import pytest

from prior_fast.processes import parallel_map


def signals_itself(number: int) -> int:
    os.kill(os.getpid(), number)
    return number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_goes_on_with_its_work(number: int) -> None:
    assert list(parallel_map(signals_itself, [number] * 3, workers=2)) == [number] * 3


def own_id(number: int) -> int:
    return os.getpid()


def test_work_in_this_process_starts_none() -> None:
    assert set(parallel_map(own_id, range(3), workers=1)) == {os.getpid()}
