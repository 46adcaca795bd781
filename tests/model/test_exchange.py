"""Sums and gathers over processes: the same bits everywhere, and an error when a process has ended."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from prior_fast.errors import RunError
from prior_fast.model.exchange import LARGEST, PART, Exchange, open_memory
from prior_fast.training.local_processes import connect_all


@pytest.fixture
def exchanges() -> Iterator[Callable[[int], list[Exchange]]]:
    made = []

    def make(count: int) -> list[Exchange]:
        memory = open_memory(count)
        made.extend(Exchange(rank, ends, memory) for rank, ends in enumerate(connect_all(count)))
        os.close(memory)  # the maps stay
        return made

    yield make
    for exchange in made:
        exchange.close()


def each(exchanges: list[Exchange], call: Callable[[Exchange, Tensor], Tensor], parts: list[Tensor]) -> list[Tensor]:
    """What each rank gets, each in a thread of its own."""
    with ThreadPoolExecutor(len(parts)) as threads:
        return list(threads.map(call, exchanges, [part.clone() for part in parts]))


# Through sockets up to LARGEST bytes. Through memory, float64: a part, a bit more, and three parts.
SHAPES = [(), (3,), (2, 129), (LARGEST // 8,), (LARGEST // 8 + 1,), (PART // 8,), (PART // 8 + 5,), (3, PART // 8)]


@pytest.mark.parametrize("shape", [(3,), (PART // 8 + 5,)])
def test_a_silent_process_is_given_up(
    shape: tuple[int, ...], exchanges: Callable[[int], list[Exchange]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prior_fast.model.exchange.PATIENCE", 1)
    first, _ = exchanges(2)
    with pytest.raises(RunError, match=r"^process 2 of 2 has not answered for 1 s: .*--resume auto goes on"):
        first.sum_(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_all_get_the_same_sum(count: int, shape: tuple[int, ...], exchanges: Callable[[int], list[Exchange]]) -> None:
    # The largest tensor that goes through sockets must not make processes wait for each other's reading.
    group = exchanges(count)
    for dtype in (torch.float64, torch.float32, torch.float64):
        parts = [torch.randn(shape, dtype=dtype) for _ in range(count)]
        found = each(group, Exchange.sum_, parts)
        torch.testing.assert_close(found[0], torch.stack(parts).sum(0))
        assert all(torch.equal(found[0], other) for other in found)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 7, 4), (3, PART // 8), (0, 4)])
def test_all_gather_the_rows_in_the_order_of_ranks(
    count: int, shape: tuple[int, ...], exchanges: Callable[[int], list[Exchange]]
) -> None:
    group = exchanges(count)
    for dtype in (torch.bfloat16, torch.float64):
        parts = [torch.randn(shape).to(dtype) for _ in range(count)]
        for found in each(group, Exchange.gather, parts):
            assert found.dtype == dtype and torch.equal(found, torch.cat(parts))
    # Not contiguous.
    parts = [torch.randn(4, 6).T[1:] for _ in range(count)]
    assert torch.equal(each(group, Exchange.gather, parts)[1], torch.cat(parts))


def test_nobody_overwrites_what_another_still_reads(exchanges: Callable[[int], list[Exchange]]) -> None:
    group = exchanges(2)
    parts = [torch.full((40, PART // 4), float(rank + 1)) for rank in range(2)]

    def slowly(exchange: Exchange, x: Tensor) -> Tensor:
        read = exchange._through_memory

        def delayed(x: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
            for place, found in read(x):
                if exchange.rank == 1:
                    time.sleep(0.001)
                yield place, found

        exchange._through_memory = delayed  # type: ignore[method-assign]
        return exchange.sum_(x)

    for found in each(group, slowly, parts):
        assert (found == 3).all()


def test_a_process_that_has_ended_is_an_error(exchanges: Callable[[int], list[Exchange]]) -> None:
    group = exchanges(2)
    group[1].close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed by another process"):
            group[0].sum_(torch.zeros(3))
    with pytest.raises(RuntimeError, match="closed by another process"):
        group[0].gather(torch.zeros(3))


def test_an_end_in_the_middle_of_a_tensor_is_an_error(exchanges: Callable[[int], list[Exchange]]) -> None:
    one, other = socket.socketpair()
    other.sendall(b"123")
    other.shutdown(socket.SHUT_WR)
    memory = open_memory(2)
    with pytest.raises(RuntimeError, match="it has ended"):
        Exchange(0, {1: one}, memory).sum_(torch.zeros(3))
    os.close(memory)
    one.close()
    other.close()
