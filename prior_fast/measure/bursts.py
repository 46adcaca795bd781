"""Times GPU calls with CUDA events, in bursts whose length depends on the time that a row may take."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

WARM_UP = 2  # calls that determine a call's pace
BURST = 10  # calls between two synchronizations with the GPU, at most
LEAST_CALLS = 3  # timed calls of a slow call, over all passes
SLEEP_CLOCK = 2e9  # upper bound of torch.cuda._sleep's cycles/s; a slower chip sleeps longer, which does no harm
MOST_SLEEP = 0.2  # seconds

Run = Callable[[tuple[Tensor, ...]], Any]
Turns = Iterator[tuple[Tensor, ...]]
Burst = Callable[[], list[float]]


@dataclass(frozen=True)
class Pace:
    """How often a call is made.

    Attributes:
        calls: calls per burst.
        passes: number of passes that time the call; later passes skip it.
        slow: whether a pass makes one call without a warm-up. Such a call computes on the host or runs long on the
            GPU, so one call is as informative as ten short ones.
    """

    calls: int
    passes: int
    slow: bool


def pace(first: float, seconds: float, passes: int) -> Pace:
    """The pace of a call that took `first` seconds, if its row may take `seconds` in `passes` passes.

    A pass makes each burst of calls twice: once to measure the host's time, once to measure the GPU's. A row then takes
    about `seconds`. A call that is longer than a pass's share is made once per pass, in LEAST_CALLS passes or more.
    """
    fitting = int(seconds / passes / (2 * first)) if first > 0 else BURST
    if fitting < 1:
        return Pace(1, min(passes, max(LEAST_CALLS, int(seconds / first))), slow=True)
    return Pace(min(fitting, BURST), passes, slow=False)


def look(run: Run, turns: Turns) -> float:
    """Seconds from a call's start until the GPU is done: the minimum of two calls, since the first may load code or
    allocate memory."""
    seconds = []
    for _ in range(WARM_UP):
        torch.cuda.synchronize()
        began = perf_counter()
        run(next(turns))
        torch.cuda.synchronize()
        seconds.append(perf_counter() - began)
    return min(seconds)


def host_time(run: Run, turns: Turns, calls: int) -> float:
    """Seconds that the host needs to start a call."""
    torch.cuda.synchronize()
    began = perf_counter()
    for _ in range(calls):
        run(next(turns))
    host = (perf_counter() - began) / calls
    torch.cuda.synchronize()
    return host


def burst(run: Run, turns: Turns, calls: int, host: float) -> list[float]:
    """GPU seconds of each of `calls` calls.

    The GPU first sleeps for about as long as the host needs to start all calls. Without the sleep, the GPU could wait
    for the host between two events, and the time between them would be the host's. There is no sleep if it would take
    more than MOST_SLEEP; the measured time of such a call is the host's.
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
    """Sets the pace of one call's competitors on a GPU; a pace is found at the first calls and kept in all passes.

    Args:
        seconds: measuring time for each competitor, over all passes.
        passes: number of passes.
    """

    def __init__(self, seconds: float, passes: int) -> None:
        self.seconds, self.passes, self.done = seconds, passes, 0
        self._found: dict[str, tuple[Pace, float]] = {}

    def bursts(self, runs: Mapping[str, Run], turns: Turns) -> tuple[dict[str, Burst], dict[str, float]]:
        """For each run that the next pass times, by name: a function that makes one burst, and the host's seconds to
        start a call.

        Measuring the host's time also warms up quick calls.
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
