"""Time, memory and calls of each rung, rungs taking turns so that a busy machine slows all alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

import torch

from prior_fast.benchmarks.ladder.check import compare, evaluate, require_movement, snapshot
from prior_fast.benchmarks.ladder.count import Counts, count
from prior_fast.benchmarks.ladder.rungs import Rung, RungStep
from prior_fast.data.batch import PackedBatch
from prior_fast.training.stages import StepContext

# A rung counts as slower than another where three of four of its steps took this much longer; less is chance.
SLOWER = 1.02


@dataclass
class Measured:
    """One rung's figures.

    Attributes:
        seconds: of each timed step.
        cpu_seconds: of all threads of this process in each timed step, which other processes disturb less.
        differences: of each term and the gradient's length from the first rung's, relative where they are above 1.
        counts: None where they can't be told.
        peak_bytes: on a GPU, with this rung's parameters and optimizer state, without those of the others.
        warm_up_seconds: the first steps', in which torch.compile compiles.
    """

    rung: Rung
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    differences: dict[str, float] = field(default_factory=dict)
    counts: Counts | None = None
    peak_bytes: int | None = None
    warm_up_seconds: float = 0.0

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third; the least and the most of fewer than four steps."""
        if len(self.seconds) < 4:
            return min(self.seconds), max(self.seconds)
        first, _, third = quantiles(self.seconds, n=4, method="inclusive")
        return first, third


def measure(
    rungs: Sequence[Rung],
    make: Callable[[Rung], RungStep],
    batches: Sequence[PackedBatch],
    context: StepContext,
    steps: int,
    warm_up: int,
    advance: Callable[[str], None] = lambda name: None,
) -> list[Measured]:
    """Check each rung against the first, warm it up, count, and time `steps` steps of each, rungs taking turns.

    batches: on the device; step i takes batch i modulo their number.

    Raises:
        RunError: a rung does not compute the first one's step, or does not move the parameters.
    """
    # All before the first runs: a new trainer makes torch.compile forget what it compiled for another.
    ready = [(make(rung), Measured(rung)) for rung in rungs]
    expected = None
    for step, result in ready:
        advance(f"({result.rung.key}) {result.rung.name}: checks")
        values = evaluate(step, batches[:2], context)
        expected = expected or values
        result.differences = compare(step, values, expected)
        before = snapshot(step)
        result.warm_up_seconds = sum(_timed(step, batches[i % len(batches)], context)[0] for i in range(warm_up))
        require_movement(step, before)
        result.counts = count(step, batches[0], context)
        if batches[0].images.is_cuda:
            result.peak_bytes = _peak(step, batches[0], context)
    for number in range(steps):
        advance(f"step {number + 1}")
        batch = batches[number % len(batches)]
        for step, result in ready:
            seconds, cpu_seconds = _timed(step, batch, context)
            result.seconds.append(seconds)
            result.cpu_seconds.append(cpu_seconds)
    return [result for _, result in ready]


def _timed(step: RungStep, batch: PackedBatch, context: StepContext) -> tuple[float, float]:
    """Seconds of a step on the clock and of all CPU threads."""
    step.prepare(batch)
    _wait(batch)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    step.step(batch, context)
    _wait(batch)
    return time.perf_counter() - begin, time.process_time() - cpu_begin


def _wait(batch: PackedBatch) -> None:
    if batch.images.is_cuda:
        torch.cuda.synchronize(batch.images.device)


def _peak(step: RungStep, batch: PackedBatch, context: StepContext) -> int:
    device = batch.images.device
    step.model.zero_grad()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step.step(batch, context)
    peak = torch.cuda.max_memory_allocated(device) - before
    step.model.zero_grad()
    tensors = [*step.model.parameters(), *step.model.buffers()]
    return peak + sum(x.numel() * x.element_size() for x in tensors) + step.optimizer_bytes


def slower_than_before(results: Sequence[Measured]) -> list[Rung | None]:
    """For each rung, the fastest of those before it where that is faster, else None."""
    found: list[Rung | None] = []
    best: Measured | None = None
    for result in results:
        slower = best is not None and result.quartiles[0] > best.median * SLOWER
        found.append(best.rung if best is not None and slower else None)
        if best is None or result.median < best.median:
            best = result
    return found
