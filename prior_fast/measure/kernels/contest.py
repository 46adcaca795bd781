"""One call of a public op and its competitors: how they are found, checked and timed."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from prior_fast.bench.common.case import Public, Work
from prior_fast.errors import RunError
from prior_fast.measure.bursts import Pacer
from prior_fast.measure.roofline import launches_of, record_launches
from prior_fast.measure.timing import Run, Timing, check, copies, joined, make_run, ready, time_pass, truth
from prior_fast.ops.common.backend import BackendError

FORWARD, BOTH = "forward", "forward+backward"
OURS = "prior_fast"
COMPILED = "torch.compile"


class Notes(Protocol):
    """Records why competitors and calls are not timed."""

    def leave_out(self, op: str, who: str, reason: str) -> None: ...

    def problem(self, words: str) -> None: ...


@dataclass(frozen=True)
class Entry:
    """One call in one direction to be measured.

    Attributes:
        with_compile: whether torch.compile of the reference is among the competitors.
    """

    case: Public
    direction: str
    dtype: str
    with_compile: bool = False

    @property
    def work(self) -> Work:
        work = self.case.both if self.backward else self.case.forward
        assert work is not None
        return work

    @property
    def backward(self) -> bool:
        return self.direction == BOTH

    @property
    def name(self) -> str:
        return f"{self.case.op} {self.case.shape} {self.direction} {self.dtype}"


def entries(case: Public, dtype: str, with_compile: bool = False) -> list[Entry]:
    """An entry for each direction of the case."""
    directions = (FORWARD,) if case.both is None else (FORWARD, BOTH)
    return [Entry(case, direction, dtype, with_compile) for direction in directions]


@dataclass
class Contest:
    """One call in one direction, with our op and the competitors that passed the check.

    Attributes:
        runs: the functions to time, by name.
        errors: their distances from the truth, by name.
        launches: number of Triton kernels that our call launches.
        passes: the timings of each pass so far, by name; on a GPU, slow calls are in the first passes only.
    """

    entry: Entry
    runs: dict[str, Run] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    launches: int | None = None
    passes: list[dict[str, Timing]] = field(default_factory=list)
    pacer: Pacer | None = None

    def time(self, seconds: float, passes: int) -> None:
        """Time one more pass of all runs; each pass has its inputs at other addresses.

        seconds: for each run, over all `passes`.
        """
        if not self.runs:
            return
        inputs = copies(self.entry.case, self.entry.backward)
        if inputs[0][0].is_cuda and self.pacer is None:
            self.pacer = Pacer(seconds, passes)
        with warnings.catch_warnings():
            # The op warns if it falls back to a slower backend; the table shows the backend.
            warnings.simplefilter("ignore", RuntimeWarning)
            self.passes.append(time_pass(self.runs, inputs, seconds / passes, self.pacer))

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of kernels.json, one for each run that was timed."""
        for who in self.runs:
            timings = [found[who] for found in self.passes if who in found]
            if timings:
                launches = self.launches if who == OURS else None
                row = make_row(self.entry, who, joined(timings))
                yield row | {"error": self.errors[who], "launches": launches}


def prepare(entry: Entry, notes: Notes) -> Contest:
    """Check all competitors of the entry; those that can't or must not be timed are recorded in `notes`."""
    case, backward = entry.case, entry.backward
    functions, left_out = contestants(case, entry.with_compile)
    for name, reason in left_out.items():
        notes.leave_out(case.op, name, reason)
    contest = Contest(entry)
    expected = truth(case, backward)
    for who, function in functions.items():
        try:
            contest.errors[who] = check(case, who, function, backward, expected)
        except RunError as error:
            notes.problem(f"{error} ({entry.direction}, {entry.dtype})")
        except Exception as error:
            words = f"{type(error).__name__}: {error}"[:200]
            if who == OURS:
                notes.problem(f"{case.op} {case.shape}: {who}: {words} ({entry.direction}, {entry.dtype})")
            else:
                notes.leave_out(case.op, who, words)
        else:
            contest.runs[who] = make_run(case, function, backward)
    if OURS in contest.runs:
        contest.launches = _launches(case, contest.runs[OURS], backward)
    return contest


def backends(case: Public) -> dict[str, str | None]:
    """The case's backends, best first, each with the reason why it can't serve, or None."""
    try:
        case.call(*case.inputs, backend="?")
    except BackendError as error:
        return error.available
    raise AssertionError(f"{case.op} took a backend that does not exist")


def contestants(case: Public, with_compile: bool) -> tuple[dict[str, Callable[..., Any]], dict[str, str]]:
    """The functions to time by name, ours first; and the reasons why others are left out."""
    available = backends(case)
    able = [name for name, reason in available.items() if reason is None]
    # Where `scipy` is a backend, `reference` is the same code. Triton's interpreter on CPUs is for tests only.
    able = [name for name in able if not (name == "reference" and "scipy" in able)]
    if not case.inputs[0].is_cuda:
        able = [name for name in able if name != "triton"]
    found: dict[str, Callable[..., Any]] = {OURS: case.call}
    for name in able[1:]:
        found[name] = _with(case, name)
    left_out = {name: reason for name, reason in available.items() if reason is not None}
    if with_compile and case.compiles:
        found[COMPILED] = torch.compile(_with(case, "reference"), dynamic=False)
    for name, other in case.others.items():
        if isinstance(other, str):
            left_out[name] = other
            found.pop(name, None)
        else:
            found[name] = other
    return found, left_out


def _with(case: Public, backend: str) -> Callable[..., Any]:
    def call(*inputs: torch.Tensor) -> Any:
        return case.call(*inputs, backend=backend)

    return call


def make_row(entry: Entry, who: str, timing: Timing) -> dict[str, Any]:
    """A row of kernels.json: what was measured of one call."""
    case = entry.case
    served = next((name for name, reason in backends(case).items() if reason is None), "none")
    return {
        "name": f"{entry.name} {who}",
        "op": case.op,
        "shape": case.shape,
        "axis": case.axis,
        "at": case.at,
        "direction": entry.direction,
        "dtype": entry.dtype,
        "who": who,
        "ours": who == OURS,
        "backend": served if who == OURS else None,
        "milliseconds": 1e3 * timing.median,
        "spread": [1e3 * value for value in timing.spread],
        "passes": [1e3 * value for value in timing.medians],
        "calls": timing.calls,
        "host_milliseconds": None if timing.host is None else 1e3 * timing.host,
        "bytes": entry.work.least_bytes,
        "operations": entry.work.operations,
    }


def _launches(case: Public, run: Callable[[tuple[torch.Tensor, ...]], Any], backward: bool) -> int | None:
    """Triton launches of our call; without a GPU, those that the op's first case would make on one."""
    available = backends(case)
    if "triton" not in available:
        return None
    if case.inputs[0].is_cuda and available["triton"] is None:
        return record_launches(lambda: run(ready(case, case.inputs, backward)))
    return launches_of(case.op).get(BOTH if backward else FORWARD)
