"""Sums over processes through sockets: the same bits everywhere, and an error when a process has ended."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from prior_fast.model.exchange import LARGEST, Exchange
from prior_fast.training.local_processes import connect_all


@pytest.fixture
def exchanges() -> Iterator[Callable[[int], list[Exchange]]]:
    made = []

    def make(count: int) -> list[Exchange]:
        made.extend(Exchange(rank, ends) for rank, ends in enumerate(connect_all(count)))
        return made

    yield make
    for exchange in made:
        exchange.close()


def sums(exchanges: list[Exchange], parts: list[Tensor]) -> list[Tensor]:
    """What each rank gets, each in a thread of its own."""
    found = [part.clone() for part in parts]
    threads = [threading.Thread(target=each.sum_, args=(x,)) for each, x in zip(exchanges, found, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("shape", [(), (3,), (2, 129), (LARGEST // 8,)])
def test_all_get_the_same_sum(count: int, shape: tuple[int, ...], exchanges: Callable[[int], list[Exchange]]) -> None:
    # The largest tensor that is taken must not make processes wait for each other's reading.
    group = exchanges(count)
    for dtype in (torch.float64, torch.float32):
        parts = [torch.randn(shape, dtype=dtype) for _ in range(count)]
        assert group[0].takes(parts[0])
        found = sums(group, parts)
        torch.testing.assert_close(found[0], torch.stack(parts).sum(0))
        assert all(torch.equal(found[0], other) for other in found)


def test_large_tensors_are_not_taken() -> None:
    assert not Exchange.takes(torch.zeros(LARGEST // 8 + 1, dtype=torch.float64))


def test_a_process_that_has_ended_is_an_error(exchanges: Callable[[int], list[Exchange]]) -> None:
    group = exchanges(2)
    group[1].close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed by another process"):
            group[0].sum_(torch.zeros(3))


def test_an_end_in_the_middle_of_a_tensor_is_an_error(exchanges: Callable[[int], list[Exchange]]) -> None:
    one, other = socket.socketpair()
    other.sendall(b"123")
    other.shutdown(socket.SHUT_WR)
    with pytest.raises(RuntimeError, match="it has ended"):
        Exchange(0, {1: one}).sum_(torch.zeros(3))
    one.close()
    other.close()
