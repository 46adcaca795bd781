"""Bursts of calls on a simulated GPU clock: how often each call is made, and which times result."""

import itertools
from collections.abc import Callable
from statistics import median

import pytest
import torch

from prior_fast.bench.common.case import Public, Work
from prior_fast.measure import bursts
from prior_fast.measure.bursts import BURST, Pacer, pace
from prior_fast.measure.kernels import contest
from prior_fast.measure.kernels.contest import Contest, Entry
from prior_fast.measure.kernels.schedule import PASSES
from prior_fast.measure.timing import time_pass

SECONDS = 0.1  # for a row
TURNS = [(torch.zeros(1),)]


class Gpu:
    """A host's clock, and the time at which the GPU finishes its work."""

    def __init__(self) -> None:
        self.now = self.done = 0.0
        self.slept: list[float] = []
        self.calls = 0

    def clock(self) -> float:
        return self.now

    def give(self, seconds: float) -> None:
        self.done = max(self.now, self.done) + seconds

    def wait(self) -> None:
        self.now = max(self.now, self.done)

    def sleep(self, cycles: int) -> None:
        self.slept.append(cycles / bursts.SLEEP_CLOCK)
        self.give(self.slept[-1])

    def launch(self, host: float, device: float) -> Callable[..., None]:
        """A call that the host only starts on the GPU."""

        def run(inputs: object) -> None:
            self.calls += 1
            self.now += host
            self.give(device)

        return run

    def compute(self, seconds: float) -> Callable[..., None]:
        """A call that waits for the GPU and computes on the host."""

        def run(inputs: object) -> None:
            self.calls += 1
            self.wait()
            self.now += seconds

        return run


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = max(gpu.now, gpu.done)

        def elapsed_time(self, end: "Event") -> float:
            return 1e3 * (end.at - self.at)

    monkeypatch.setattr("torch.cuda.Event", Event)
    monkeypatch.setattr("torch.cuda.synchronize", gpu.wait)
    monkeypatch.setattr("torch.cuda._sleep", gpu.sleep)
    monkeypatch.setattr("prior_fast.measure.bursts.perf_counter", gpu.clock)
    monkeypatch.setattr("prior_fast.measure.timing.perf_counter", gpu.clock)
    return gpu


def all_passes(run: Callable[..., None]) -> tuple[list[list[float]], float | None]:
    """The samples of each pass in which the call was timed, and its host time in the last pass."""
    pacer, found, host = Pacer(SECONDS, PASSES), [], None
    for _ in range(PASSES):
        timing = time_pass({"a": run}, TURNS, SECONDS / PASSES, pacer).get("a")
        if timing is not None:
            found += timing.passes
            host = timing.host
    return found, host


def test_a_short_call_has_the_time_of_the_gpu_and_not_of_its_host(gpu: Gpu) -> None:
    found, host = all_passes(gpu.launch(host=50e-6, device=10e-6))
    assert len(found) == PASSES and host == pytest.approx(50e-6)
    assert all(value == pytest.approx(10e-6) for samples in found for value in samples)
    assert min(map(len, found)) >= BURST and min(gpu.slept) >= BURST * 50e-6


@pytest.mark.parametrize("seconds", [5e-6, 5e-5, 5e-4, 2e-3, 6e-3, 8e-3, 0.02, 0.05, 0.3, 2.0])
@pytest.mark.parametrize("on_host", [False, True])
def test_a_row_takes_its_seconds_and_a_few_calls(gpu: Gpu, seconds: float, on_host: bool) -> None:
    run = gpu.compute(seconds) if on_host else gpu.launch(host=2e-6, device=seconds)
    found, host = all_passes(run)
    assert sum(map(len, found)) >= 3
    assert median(found[0]) == pytest.approx(seconds, rel=1e-3)
    # A sleep is at most one and a half times the host's time; each pass has at least one burst.
    assert gpu.now < 3.5 * SECONDS + 8 * seconds
    if on_host and len(found) < PASSES:
        assert host == pytest.approx(seconds)


@pytest.mark.parametrize("seconds", [0.15, 0.3, 2.0])
def test_a_call_of_the_host_is_called_five_times_and_nothing_sleeps(gpu: Gpu, seconds: float) -> None:
    found, _ = all_passes(gpu.compute(seconds))
    assert found == [[pytest.approx(seconds)]] * 3
    assert gpu.calls == 5 and not gpu.slept and gpu.now == pytest.approx(5 * seconds)


def test_a_slow_first_call_does_not_make_a_quick_one_slow(gpu: Gpu) -> None:
    quick, first = gpu.launch(host=20e-6, device=10e-6), [2.0]

    def run(inputs: object) -> None:
        gpu.now += first.pop() if first else 0
        quick(inputs)

    found, _ = all_passes(run)
    assert len(found) == PASSES and min(map(len, found)) >= BURST


def test_competitors_take_turns_and_slow_ones_leave_early(gpu: Gpu) -> None:
    order: list[str] = []

    def noted(name: str, run: Callable[..., None]) -> Callable[..., None]:
        return lambda inputs: (order.append(name), run(inputs))[1]

    runs = {"quick": noted("quick", gpu.launch(1e-5, 1e-5)), "slow": noted("slow", gpu.compute(1.0))}
    pacer = Pacer(SECONDS, PASSES)
    names = [list(time_pass(runs, TURNS, SECONDS / PASSES, pacer)) for _ in range(PASSES)]
    assert names == [["quick", "slow"]] * 3 + [["quick"]] * 4
    kinds = [name for name, _ in itertools.groupby(order)]
    assert kinds == ["quick", "slow"] * 4 + ["quick"]


@pytest.mark.parametrize(
    ("first", "calls", "passes"),
    [(0.0, 10, 7), (1e-5, 10, 7), (1e-3, 7, 7), (7e-3, 1, 7), (8e-3, 1, 7), (0.02, 1, 5), (0.05, 1, 3), (9.0, 1, 3)],
)
def test_the_pace(first: float, calls: int, passes: int) -> None:
    found = pace(first, SECONDS, PASSES)
    assert (found.calls, found.passes, found.slow) == (calls, passes, first > SECONDS / PASSES / 2)


def test_rows_of_slow_ones_have_fewer_passes(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu:
        is_cuda = True

    monkeypatch.setattr(contest, "copies", lambda case, backward: [(OnGpu(),)])
    monkeypatch.setattr(contest, "backends", lambda case: {"cuda": None})
    case = Public("an_op", "B=1", lambda *inputs: None, (torch.zeros(1),), Work(1, 1))
    found = Contest(Entry(case, "forward", "float32"))
    found.runs = {"prior_fast": gpu.launch(1e-5, 1e-4), "scipy": gpu.compute(0.5)}
    found.errors = dict.fromkeys(found.runs, 0.0)
    for _ in range(PASSES):
        found.time(SECONDS, PASSES)
    ours, scipy = found.rows()
    assert len(ours["passes"]) == PASSES and ours["milliseconds"] == pytest.approx(0.1)
    assert scipy["passes"] == pytest.approx([500] * 3) and scipy["calls"] == 3
    assert scipy["host_milliseconds"] == pytest.approx(500)
