"""`prior-fast bench kernels`: each public op beside its competitors and its physical limit."""

import importlib
import pkgutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import prior_fast.bench
from prior_fast.bench._case import Public, Work
from prior_fast.benchmarks.kernels_rows import kind_of
from prior_fast.benchmarks.roofline import (
    Ceilings,
    better,
    chip_limits,
    launches_of,
    limit,
    measure_ceilings,
    record_launches,
    what_binds,
)
from prior_fast.benchmarks.timing import Timing, check, copies, make_run, ready, time_together, truth
from prior_fast.config.overrides import nearest
from prior_fast.errors import RunError, UsageError
from prior_fast.ops._backend import BackendError

DTYPES = ("bfloat16", "float16", "float32")
FORWARD, BOTH = "forward", "forward+backward"
OURS = "prior_fast"
COMPILED = "torch.compile"


@dataclass(frozen=True)
class Options:
    """What `prior-fast bench kernels` was asked for; see its --help.

    ops, dtypes, small: empty or None leaves the choice to the device.
    compile: torch.compile of the reference at every shape; else on a GPU at the first shape of each kind, and on a CPU
        nowhere.
    """

    device: torch.device
    ops: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    seconds: float = 0.2
    small: bool | None = None
    compile: bool = False
    out: Path | None = None


def op_names() -> list[str]:
    """The ops whose bench file has public calls."""
    names = [info.name for info in pkgutil.iter_modules(prior_fast.bench.__path__) if not info.ispkg]
    return [name for name in names if not name.startswith("_") and hasattr(_bench(name), "public")]


def _bench(name: str) -> Any:
    if name == "conftest" or name.startswith("test_"):  # pytest's, beside the ops
        return None
    return importlib.import_module(f"prior_fast.bench.{name}")


def public_cases(op: str, device: torch.device, dtype: str, small: bool) -> Iterator[Public]:
    """The op's public calls, with the same numbers each time."""
    torch.manual_seed(0)
    yield from _bench(op).public(device, getattr(torch, dtype), small)


def run_kernels(options: Options, advance: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Check and time every case; returns what kernels.json holds, with the calls that failed their check as problems.

    Raises:
        UsageError: an op or dtype that is not known, or a time that is not over 0.
    """
    from prior_fast.benchmarks.ladder.report import machine

    if not options.seconds > 0:
        raise UsageError(f"--seconds {options.seconds}: wants more than 0")
    device, on_gpu = options.device, options.device.type == "cuda"
    small = not on_gpu if options.small is None else options.small
    dtypes = _known("dtype", options.dtypes or (("bfloat16", "float32") if on_gpu else ("float32",)), DTYPES)
    ops = _known("op", options.ops or op_names(), op_names())
    advance("ceilings of this machine")
    ceilings = measure_ceilings(device, dtypes)
    report: dict[str, Any] = {
        "machine": machine(),
        "options": {"device": device.type, "dtypes": dtypes, "seconds": options.seconds, "small": small},
        "rows": [],
        "left_out": [],
        "problems": [],
    }
    for op in ops:
        for dtype in dtypes:
            seen: set[str] = set()
            for case in public_cases(op, device, dtype, small):
                advance(f"{op} {case.shape}")
                kind = kind_of(op, case.shape)
                with_compile = options.compile or (on_gpu and kind not in seen)
                seen.add(kind)
                _measure_case(case, dtype, options.seconds, with_compile, report)
    # Other work on the machine lowers what is found: a second look, and the better of the two.
    advance("ceilings of this machine")
    ceilings = better(ceilings, measure_ceilings(device, dtypes))
    report["ceilings"] = {"name": ceilings.name, "bandwidth": ceilings.bandwidth, "rates": ceilings.rates}
    report["rows"] = [row | limits(row, ceilings) for row in report["rows"]]
    return report


def _known(what: str, words: Sequence[str], known: Sequence[str]) -> list[str]:
    for word in words:
        if word not in known:
            hint = nearest(word, list(known)) or f": choose from {', '.join(known)}"
            raise UsageError(f"unknown {what} {word!r}{hint}")
    return list(dict.fromkeys(words))


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
        # Else shapes of one case would count as new shapes of another's graph.
        torch._dynamo.reset()
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


def _measure_case(case: Public, dtype: str, seconds: float, with_compile: bool, report: dict[str, Any]) -> None:
    """Add the case's rows to the report, and what can't be timed, or must not be."""
    functions, left_out = contestants(case, with_compile)
    for name, reason in left_out.items():
        _leave_out(report, case.op, name, reason)
    for direction, work in ((FORWARD, case.forward), (BOTH, case.both)):
        if work is None:
            continue
        backward = direction == BOTH
        expected = truth(case, backward)
        runs, errors = {}, {}
        for who, function in functions.items():
            try:
                errors[who] = check(case, who, function, backward, expected)
            except RunError as error:
                report["problems"].append(f"{error} ({direction}, {dtype})")
            except Exception as error:
                if who == OURS:
                    raise
                _leave_out(report, case.op, who, f"{type(error).__name__}: {error}"[:200])
            else:
                runs[who] = make_run(case, function, backward)
        del expected
        inputs = copies(case, backward)
        with warnings.catch_warnings():
            # A backend that serves for want of a better one says so in the table.
            warnings.simplefilter("ignore", RuntimeWarning)
            timings = time_together(runs, inputs, seconds) if runs else {}
        for who, timing in timings.items():
            facts = {"error": errors[who], "launches": _launches(case, runs[who], backward) if who == OURS else None}
            report["rows"].append(make_row(case, direction, work, dtype, who, timing) | facts)


def _leave_out(report: dict[str, Any], op: str, who: str, reason: str) -> None:
    """Note once why somebody is not timed at an op."""
    entry = next((entry for entry in report["left_out"] if (entry["who"], entry["reason"]) == (who, reason)), None)
    if entry is None:
        report["left_out"].append({"who": who, "reason": reason, "ops": [op]})
    elif op not in entry["ops"]:
        entry["ops"].append(op)


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
        "quartiles": [1e3 * value for value in timing.quartiles],
        "calls": len(timing.samples),
        "host_milliseconds": None if timing.host is None else 1e3 * timing.host,
        "bytes": work.least_bytes,
        "operations": work.operations,
    }


def limits(row: dict[str, Any], ceilings: Ceilings) -> dict[str, Any]:
    """What the ceilings say of a measured row, and the data sheets of other chips."""
    work, host = Work(row["bytes"], row["operations"]), row["host_milliseconds"]
    seconds = row["milliseconds"] / 1e3
    least, bound = limit(ceilings, row["dtype"], work)
    return {
        "limit_milliseconds": 1e3 * least,
        "limit_by": bound,
        "share_of_limit": least / seconds,
        "binds": what_binds(seconds, least, bound, None if host is None else host / 1e3),
        "chip_limits_milliseconds": chip_limits(row["dtype"], work),
    }


def _launches(case: Public, run: Callable[[tuple[torch.Tensor, ...]], Any], backward: bool) -> int | None:
    """Triton launches of our call: on a GPU those of this call, else what the op's first case would launch there."""
    available = backends(case)
    if "triton" not in available:
        return None
    if case.inputs[0].is_cuda and available["triton"] is None:
        return record_launches(lambda: run(ready(case, case.inputs, backward)))
    return launches_of(case.op).get(BOTH if backward else FORWARD)
