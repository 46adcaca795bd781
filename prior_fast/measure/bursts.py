"""Times of calls on a GPU: between events, in bursts that are as long as a row's time allows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

WARM_UP = 2  # calls, after which a call's pace is known
BURST = 10  # calls between two waits for the GPU, at most
LEAST_CALLS = 3  # of a slow call, in all passes together
SLEEP_CLOCK = 2e9  # cycles/s of torch.cuda._sleep, at most: a slower chip sleeps longer, which does no harm
MOST_SLEEP = 0.2  # seconds

Run = Callable[[tuple[Tensor, ...]], Any]
Turns = Iterator[tuple[Tensor, ...]]
Burst = Callable[[], list[float]]


@dataclass(frozen=True)
class Pace:
    """How often a call is made.

    Attributes:
        calls: of a burst.
        passes: the first passes, in which it is timed at all.
        slow: it is called once in a pass, without a warm-up. Such a call computes on the host, or is a long one of the
            GPU; either way one call tells as much as ten short ones.
    """

    calls: int
    passes: int
    slow: bool


def pace(first: float, seconds: float, passes: int) -> Pace:
    """The pace of a call that took `first` seconds, if its row may take `seconds` in `passes` passes.

    A pass makes each burst of calls twice, once for the host's time. A row then takes about `seconds`, or a few calls
    where those are longer than its share of a pass.
    """
    fitting = int(seconds / passes / (2 * first)) if first > 0 else BURST
    if fitting < 1:
        return Pace(1, min(passes, max(LEAST_CALLS, int(seconds / first))), slow=True)
    return Pace(min(fitting, BURST), passes, slow=False)


def look(run: Run, turns: Turns) -> float:
    """Seconds of a call until the GPU is done: the less of two, since a first one may load or allocate something."""
    seconds = []
    for _ in range(WARM_UP):
        torch.cuda.synchronize()
        began = perf_counter()
        run(next(turns))
        torch.cuda.synchronize()
        seconds.append(perf_counter() - began)
    return min(seconds)


def host_time(run: Run, turns: Turns, calls: int) -> float:
    """Seconds of the host to start a call."""
    torch.cuda.synchronize()
    began = perf_counter()
    for _ in range(calls):
        run(next(turns))
    host = (perf_counter() - began) / calls
    torch.cuda.synchronize()
    return host


def burst(run: Run, turns: Turns, calls: int, host: float) -> list[float]:
    """Seconds on the GPU of each of a few calls.

    The GPU first sleeps for about as long as the host needs to start them all: where it had to wait for the host
    between two events, their distance would be the host's time. It does not sleep where that would take more than
    MOST_SLEEP: such a call's time is the host's.
    """
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(calls)]
    torch.cuda.synchronize()
    sleep = 1.5 * calls * host
    if sleep <= MOST_SLEEP:
        torch.cuda._sleep(int(sleep * SLEEP_CLOCK))
    for begin, end in events:
        inputs = next(turns)
        begin.record()
        run(inputs)
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1e3 for begin, end in events]


class Pacer:
    """One call's competitors on a GPU: the pace of each is found at its first calls and kept through all passes.

    Args:
        seconds: for each of them, in all passes together.
        passes: how many there will be.
    """

    def __init__(self, seconds: float, passes: int) -> None:
        self.seconds, self.passes, self.done = seconds, passes, 0
        self._found: dict[str, tuple[Pace, float]] = {}

    def bursts(self, runs: Mapping[str, Run], turns: Turns) -> tuple[dict[str, Burst], dict[str, float]]:
        """By name, for all that the next pass times: what makes one burst, and the host's seconds to start a call.

        Quick calls are warmed up here, by those that measure the host.
        """
        bursts: dict[str, Burst] = {}
        hosts: dict[str, float] = {}
        for name, run in runs.items():
            if name not in self._found:
                seconds = look(run, turns)
                self._found[name] = pace(seconds, self.seconds, self.passes), seconds
            found, host = self._found[name]
            if self.done >= found.passes:
                continue
            hosts[name] = host if found.slow else host_time(run, turns, found.calls)
            bursts[name] = partial(burst, run, turns, found.calls, hosts[name])
        self.done += 1
        return bursts, hosts
