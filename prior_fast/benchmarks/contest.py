"""One call of a public op, and all who compute the same: who they are, the check of each, and what was timed."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from prior_fast.bench._case import Public, Work
from prior_fast.benchmarks.roofline import launches_of, record_launches
from prior_fast.benchmarks.timing import Run, Timing, check, copies, joined, make_run, ready, time_pass, truth
from prior_fast.errors import RunError
from prior_fast.ops._backend import BackendError

FORWARD, BOTH = "forward", "forward+backward"
OURS = "prior_fast"
COMPILED = "torch.compile"


@dataclass
class Contest:
    """One call in one direction, with all who were seen to compute it.

    Attributes:
        runs: by name.
        errors: their distances from the truth.
        passes: what was timed so far, by name in each pass.
    """

    case: Public
    direction: str
    work: Work
    dtype: str
    runs: dict[str, Run] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    passes: list[dict[str, Timing]] = field(default_factory=list)

    @property
    def backward(self) -> bool:
        return self.direction == BOTH

    def time(self, seconds: float) -> None:
        """One more pass of all; inputs lie elsewhere in memory than those of the pass before."""
        if not self.runs:
            return
        inputs = copies(self.case, self.backward)
        with warnings.catch_warnings():
            # A backend that serves for want of a better one says so in the table.
            warnings.simplefilter("ignore", RuntimeWarning)
            self.passes.append(time_pass(self.runs, inputs, seconds))

    def rows(self) -> Iterator[dict[str, Any]]:
        """What kernels.json holds of each."""
        for who, run in self.runs.items():
            timing = joined([found[who] for found in self.passes])
            row = make_row(self.case, self.direction, self.work, self.dtype, who, timing)
            launches = _launches(self.case, run, self.backward) if who == OURS else None
            yield row | {"error": self.errors[who], "launches": launches}


def prepare(case: Public, dtype: str, with_compile: bool, report: dict[str, Any]) -> Iterator[Contest]:
    """The case's contests; those who can't be timed, or must not be, go to the report."""
    functions, left_out = contestants(case, with_compile)
    for name, reason in left_out.items():
        _leave_out(report, case.op, name, reason)
    for direction, work in ((FORWARD, case.forward), (BOTH, case.both)):
        if work is None:
            continue
        contest = Contest(case, direction, work, dtype)
        expected = truth(case, contest.backward)
        for who, function in functions.items():
            try:
                contest.errors[who] = check(case, who, function, contest.backward, expected)
            except RunError as error:
                report["problems"].append(f"{error} ({direction}, {dtype})")
            except Exception as error:
                if who == OURS:
                    raise
                _leave_out(report, case.op, who, f"{type(error).__name__}: {error}"[:200])
            else:
                contest.runs[who] = make_run(case, function, contest.backward)
        yield contest


def _leave_out(report: dict[str, Any], op: str, who: str, reason: str) -> None:
    """Note once why somebody is not timed at an op."""
    entry = next((entry for entry in report["left_out"] if (entry["who"], entry["reason"]) == (who, reason)), None)
    if entry is None:
        report["left_out"].append({"who": who, "reason": reason, "ops": [op]})
    elif op not in entry["ops"]:
        entry["ops"].append(op)


def backends(case: Public) -> dict[str, str | None]:
    """The case's backends, best first, and why one can't serve."""
    try:
        case.call(*case.inputs, backend="?")
    except BackendError as error:
        return error.available
    raise AssertionError(f"{case.op} took a backend that does not exist")


def contestants(case: Public, with_compile: bool) -> tuple[dict[str, Callable[..., Any]], dict[str, str]]:
    """Who is timed, ours first, by name; and why others are not."""
    available = backends(case)
    able = [name for name, reason in available.items() if reason is None]
    # SciPy goes by two names, and Triton's interpreter is for tests.
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
        else:
            found[name] = other
    return found, left_out


def _with(case: Public, backend: str) -> Callable[..., Any]:
    def call(*inputs: torch.Tensor) -> Any:
        return case.call(*inputs, backend=backend)

    return call


def make_row(case: Public, direction: str, work: Work, dtype: str, who: str, timing: Timing) -> dict[str, Any]:
    """What was measured of one call, as kernels.json has it."""
    served = next((name for name, reason in backends(case).items() if reason is None), "none")
    return {
        "name": f"{case.op} {case.shape} {direction} {dtype} {who}",
        "op": case.op,
        "shape": case.shape,
        "axis": case.axis,
        "at": case.at,
        "direction": direction,
        "dtype": dtype,
        "who": who,
        "ours": who == OURS,
        "backend": served if who == OURS else None,
        "milliseconds": 1e3 * timing.median,
        "spread": [1e3 * value for value in timing.spread],
        "passes": [1e3 * value for value in timing.medians],
        "calls": timing.calls,
        "host_milliseconds": None if timing.host is None else 1e3 * timing.host,
        "bytes": work.least_bytes,
        "operations": work.operations,
    }


def _launches(case: Public, run: Callable[[tuple[torch.Tensor, ...]], Any], backward: bool) -> int | None:
    """Triton launches of our call: on a GPU those of this call, else what the op's first case would launch there."""
    available = backends(case)
    if "triton" not in available:
        return None
    if case.inputs[0].is_cuda and available["triton"] is None:
        return record_launches(lambda: run(ready(case, case.inputs, backward)))
    return launches_of(case.op).get(BOTH if backward else FORWARD)
