"""Checks calls against the reference, then times them in passes; competitors take turns in each pass."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from prior_fast.bench.common.case import Public, size
from prior_fast.errors import RunError
from prior_fast.measure.bursts import Burst, Pacer, Run, Turns

# Largest allowed distance of an output or gradient from the truth, relative to the truth's norm. Rounding stays far
# below it; a call that skips a part of its work exceeds it.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}
# Above this many input numbers the truth is computed in float32: float64 is many times slower on most GPUs.
DOUBLE_NUMBERS = 2**27
LEAST_SAMPLES, MOST_SAMPLES = 3, 1000  # per pass on a CPU; on a GPU a pass has at least one burst
WARM_UP = 2  # calls before each pass on a CPU
MOST_COPIES, MOST_BYTES = 64, 2**32  # limits on the copies of a call's inputs


@dataclass
class Timing:
    """Times of one call, in seconds.

    Attributes:
        passes: the samples of each pass: GPU time on a GPU, else wall-clock time.
        host: the host's time to start a call; None on a CPU.
    """

    passes: list[list[float]] = field(default_factory=list)
    host: float | None = None

    @property
    def medians(self) -> list[float]:
        """The median of each pass."""
        return [median(samples) for samples in self.passes]

    @property
    def median(self) -> float:
        """The median of the passes' medians."""
        return median(self.medians)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest of the passes' medians."""
        return min(self.medians), max(self.medians)

    @property
    def calls(self) -> int:
        """How often the call was timed."""
        return sum(map(len, self.passes))


def flatten(value: Any) -> list[Tensor]:
    """The tensors of an output: a tensor or a tuple of them.

    Raises:
        TypeError: the output is something else, for example None.
    """
    values = value if isinstance(value, (tuple, list)) else (value,)
    for part in values:
        if not isinstance(part, Tensor):
            raise TypeError(f"it returned {type(part).__name__}, wanted tensors")
    return list(values)


def make_run(case: Public, function: Callable[..., Any], backward: bool) -> Run:
    """The function to time: it calls `function` on a tuple of inputs.

    It returns the output. With `backward`, it also computes the gradients for random gradients of the output, and
    returns the pair of output and gradients.
    """
    if not backward:

        def forward(inputs: tuple[Tensor, ...]) -> Any:
            with torch.no_grad():
                return function(*inputs)

        return forward
    douts: list[Tensor] = []

    def both(inputs: tuple[Tensor, ...]) -> tuple[Any, tuple[Tensor, ...]]:
        output = function(*inputs)
        ends = [part for part in flatten(output) if part.requires_grad]
        if not ends:
            raise TypeError("its output has no gradient")
        if not douts:
            douts.extend(_cotangents(ends, case.inputs[case.wanted[0]].dtype))
        return output, torch.autograd.grad(ends, [inputs[index] for index in case.wanted], douts)

    return both


def _cotangents(ends: Sequence[Tensor], dtype: torch.dtype) -> Iterator[Tensor]:
    """Random gradients of the output, equal for all competitors and rounded to the inputs' dtype.

    They are drawn on the output's device: a CPU takes a quarter of a second for the largest ones of a GPU, and they are
    drawn twice for each competitor.
    """
    device = ends[0].device
    generator = torch.Generator(device).manual_seed(0)
    for end in ends:
        numbers = torch.randn(end.shape, generator=generator, device=device) if end.dim() else end.new_ones(())
        yield numbers.to(dtype).to(end.dtype)


def ready(case: Public, inputs: tuple[Tensor, ...], backward: bool) -> tuple[Tensor, ...]:
    """The inputs, detached; with `backward`, those in `case.wanted` require gradients."""
    return tuple(
        x.detach().requires_grad_() if backward and index in case.wanted else x.detach()
        for index, x in enumerate(inputs)
    )


def truth(case: Public, backward: bool) -> list[Tensor]:
    """The expected output and gradients: those of `case.truth`, else of the reference in float64 (in float32 above
    DOUBLE_NUMBERS input numbers)."""
    inputs, function = case.inputs, case.truth
    if function is None:
        wide = torch.float64 if sum(x.numel() for x in inputs) <= DOUBLE_NUMBERS else torch.float32

        def function(*wider: Tensor) -> Any:
            return case.call(*wider, backend="reference")

        inputs = tuple(x.to(wide) if x.is_floating_point() else x for x in inputs)
    return _results(case, make_run(case, function, backward), ready(case, inputs, backward), backward)


def _results(case: Public, run: Run, inputs: tuple[Tensor, ...], backward: bool) -> list[Tensor]:
    """The tensors to compare: the output, or what `case.judged` makes of it, and the gradients."""
    found = run(inputs)
    output, gradients = found if backward else (found, ())
    if case.judged is not None:
        flatten(output)
        output = case.judged(output, *case.inputs)
    return [part.detach() for part in (*flatten(output), *gradients)]


def check(case: Public, who: str, function: Callable[..., Any], backward: bool, expected: Sequence[Tensor]) -> float:
    """The greatest distance of an output or gradient from `expected`, relative to the norm of the expected tensor.

    Raises:
        RunError: the distance exceeds the tolerance of the dtypes, or the results can't be compared. Such a call must
            not be timed.
    """
    name = f"{case.op} {case.shape}: {who}"
    try:
        results = _results(case, make_run(case, function, backward), ready(case, case.inputs, backward), backward)
    except TypeError as error:
        raise RunError(f"{name}: {error}") from error
    if len(results) != len(expected):
        raise RunError(f"{name} returned {len(results)} tensors, wanted {len(expected)}")
    dtypes = [x.dtype for x in case.inputs if x.dtype in TOLERANCES] + [x.dtype for x in results]
    tolerance = max(TOLERANCES.get(dtype, 0.0) for dtype in dtypes)
    worst = 0.0
    for number, (result, wanted) in enumerate(zip(results, expected)):
        if result.shape != wanted.shape:
            raise RunError(f"{name}: result {number} has shape {list(result.shape)}, wanted {list(wanted.shape)}")
        wide = wanted.double()
        distance = float((result.double() - wide).norm() / wide.norm().clamp(min=1e-30)) if wide.numel() else 0.0
        if not distance <= tolerance:
            raise RunError(
                f"{name}: result {number} differs from the reference by {distance:.2g} of its norm, "
                f"more than {tolerance:g}"
            )
        worst = max(worst, distance)
    return worst


def copies(case: Public, backward: bool) -> list[tuple[Tensor, ...]]:
    """Copies of the inputs, used in turn; on a GPU enough that a copy leaves the L2 cache before its next use."""
    number = 1
    if case.inputs[0].is_cuda:
        cache = torch.cuda.get_device_properties(case.inputs[0].device).L2_cache_size
        number = copy_count(size(*case.inputs), cache)
    return [ready(case, tuple(x.clone() for x in case.inputs), backward) for _ in range(number)]


def copy_count(size_bytes: int, cache_bytes: int) -> int:
    """Number of copies of inputs that fill a cache twice, within MOST_COPIES and MOST_BYTES; at least one."""
    size_bytes = max(size_bytes, 1)
    return max(min(2 * cache_bytes // size_bytes + 1, MOST_COPIES, MOST_BYTES // size_bytes), 1)


def time_pass(
    runs: Mapping[str, Run], inputs: Sequence[tuple[Tensor, ...]], seconds: float, pacer: Pacer | None = None
) -> dict[str, Timing]:
    """Time one pass of each run; returns timings by name. Runs take turns, so a busy machine slows all of them equally.

    Args:
        runs: the functions to call, from `make_run`; they are warmed up here.
        inputs: copies of the inputs, used in turn.
        seconds: for each run; at least LEAST_SAMPLES calls are timed, on a GPU at least one burst.
        pacer: sets the pace of calls on a GPU; runs that have enough samples are left out.
    """
    turns = itertools.cycle(inputs)
    if pacer is not None:
        bursts, hosts = pacer.bursts(runs, turns)
        samples = _take_turns(bursts, seconds, 1)
        return {name: Timing([found], hosts[name]) for name, found in samples.items()}
    for run in runs.values():
        for _ in range(WARM_UP):
            run(next(turns))
    samples = _take_turns({name: partial(_one, run, turns) for name, run in runs.items()}, seconds, LEAST_SAMPLES)
    return {name: Timing([found]) for name, found in samples.items()}


def _take_turns(calls: Mapping[str, Burst], seconds: float, least: int) -> dict[str, list[float]]:
    """The samples of each call; calls take turns until each has `least` samples and has used `seconds`."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    waiting = list(calls)
    while waiting:
        for name in waiting:
            began = perf_counter()
            samples[name] += calls[name]()
            spent[name] += perf_counter() - began
        waiting = [
            name
            for name in waiting
            if len(samples[name]) < least or (spent[name] < seconds and len(samples[name]) < MOST_SAMPLES)
        ]
    return samples


def joined(timings: Sequence[Timing]) -> Timing:
    """Several passes of one call as one timing."""
    hosts = [timing.host for timing in timings if timing.host is not None]
    return Timing([samples for timing in timings for samples in timing.passes], median(hosts) if hosts else None)


def _one(run: Run, turns: Turns) -> list[float]:
    inputs = next(turns)
    began = perf_counter()
    run(inputs)
    return [perf_counter() - began]
