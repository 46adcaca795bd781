"""Measures time, memory and calls of each rung. Rungs take turns, so a busy machine slows all of them equally."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

import torch
from torch import Tensor

from prior_fast.batch import PackedBatch
from prior_fast.errors import RunError
from prior_fast.measure.ladder.check import (
    Values,
    compare,
    compare_compiled,
    evaluate,
    plain_terms_of,
    require_movement,
    snapshot,
)
from prior_fast.measure.ladder.count import Counts, count
from prior_fast.measure.ladder.rungs import Rung, RungStep
from prior_fast.training.stages import StepContext

# A rung counts as slower than another if three quarters of its steps took at least this many times the other's median.
# A smaller difference counts as noise.
SLOWER = 1.02


@dataclass
class Measured:
    """One rung's figures.

    Attributes:
        seconds: wall-clock time of each timed step.
        cpu_seconds: CPU time of all threads of this process in each timed step; other processes disturb it less.
        differences: of each term and the gradient's norm from the first rung's, relative for values above 1.
        counts: None if the step was not counted.
        peak_bytes: on a GPU, with this rung's parameters and optimizer state, without those of the others.
        warm_up_seconds: time of the first steps, in which torch.compile compiles.
        compiled_differences: of a compiled step's terms from those without the compiler, with dropout.
        problem: why the rung is not timed; empty if it is timed.
        trace: the traceback of an error that is not a failed check.
    """

    rung: Rung
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    differences: dict[str, float] = field(default_factory=dict)
    counts: Counts | None = None
    peak_bytes: int | None = None
    warm_up_seconds: float = 0.0
    compiled_differences: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    trace: str = ""

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile; minimum and maximum of fewer than four steps."""
        if len(self.seconds) < 4:
            return min(self.seconds), max(self.seconds)
        first, _, third = quantiles(self.seconds, n=4, method="inclusive")
        return first, third


@dataclass(frozen=True)
class MeasurePlan:
    """What is done with each rung.

    Attributes:
        timed: batches on the device; step i takes batch i modulo their number.
        checked: batches on which a rung is compared with the first one, in float32; smaller ones need less memory.
        context: the context of every step.
        steps: number of timed steps.
        warm_up: number of steps before them.
    """

    timed: Sequence[PackedBatch]
    checked: Sequence[PackedBatch]
    context: StepContext
    steps: int
    warm_up: int


def measure(
    rungs: Sequence[Rung],
    make: Callable[[Rung], RungStep],
    plan: MeasurePlan,
    advance: Callable[[str], None] = lambda name: None,
    save: Callable[[Sequence[Measured]], None] = lambda results: None,
) -> list[Measured]:
    """Check each rung against the first, warm it up, and count and time its first step; then time the other steps, in
    which the rungs take turns.

    A rung that fails has the reason as its `problem` and is not timed; the others go on.

    save: called with the results so far after each rung and after each turn, so that no result is lost.

    Raises:
        RunError: the first rung fails, with which the others are compared.
    """
    # Make all steps before the first one runs: a new trainer discards what torch.compile compiled for another.
    ready = [(make(rung), Measured(rung)) for rung in rungs]
    done: list[Measured] = []
    expected: Values | None = None
    for step, result in ready:
        advance(f"({result.rung.key}) {result.rung.name}: checks")
        done.append(result)
        try:
            expected = _prepare(step, result, plan, expected)
        except Exception as error:
            if expected is None:
                raise
            # A failure of one rung, for example of the compiler or for lack of memory, must not lose the others.
            own = isinstance(error, RunError)
            result.problem = str(error) if own else f"rung {result.rung.key} ({result.rung.name}) fails: {error!r}"
            result.trace = "" if own else traceback.format_exc()
            result.seconds = []
        save(done)
    for number in range(1, plan.steps):
        advance(f"step {number + 1}")
        for step, result in ready:
            if not result.problem:
                _take(step, result, plan, number)
        save(done)
    return done


def _prepare(step: RungStep, result: Measured, plan: MeasurePlan, expected: Values | None) -> Values:
    """Do everything for a rung that comes before the turns; returns the values of the first rung."""
    values = evaluate(step, plan.checked, plan.context)
    expected = expected or values
    result.differences = compare(step, values, expected)
    batch, before = plan.timed[0], snapshot(step)
    plain = plain_terms_of(step, batch, plan.context) if step.compiled else {}
    for number in range(plan.warm_up):
        seconds, _, terms = _timed(step, plan.timed[number % len(plan.timed)], plan.context)
        result.warm_up_seconds += seconds
        if number == 0 and step.compiled:
            result.compiled_differences = compare_compiled(step, terms, plain)
    require_movement(step, before)
    _take(step, result, plan, 0)
    result.counts = count(step, batch, plan.context)
    if batch.images.is_cuda:
        result.peak_bytes = _peak(step, batch, plan.context)
    return expected


def _take(step: RungStep, result: Measured, plan: MeasurePlan, number: int) -> None:
    """Time step `number`."""
    seconds, cpu_seconds, _ = _timed(step, plan.timed[number % len(plan.timed)], plan.context)
    result.seconds.append(seconds)
    result.cpu_seconds.append(cpu_seconds)


def _timed(step: RungStep, batch: PackedBatch, context: StepContext) -> tuple[float, float, dict[str, Tensor]]:
    """Wall-clock seconds of a step, CPU seconds of all threads, and the step's terms."""
    step.prepare(batch)
    _wait(batch)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    terms = step.step(batch, context)
    _wait(batch)
    return time.perf_counter() - begin, time.process_time() - cpu_begin, terms


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
    """For each rung, the fastest rung before it if that is faster, else None."""
    found: list[Rung | None] = []
    best: Measured | None = None
    for result in results:
        slower = best is not None and result.quartiles[0] > best.median * SLOWER
        found.append(best.rung if best is not None and slower else None)
        if best is None or result.median < best.median:
            best = result
    return found
