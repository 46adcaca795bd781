"""`prior-fast bench kernels`: each public op beside its competitors and its physical limit."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import prior_fast.bench
from prior_fast.bench._case import Public, Work
from prior_fast.benchmarks.contest import Contest, prepare
from prior_fast.benchmarks.kernels_rows import kind_of
from prior_fast.benchmarks.roofline import Ceilings, better, chip_limits, limit, measure_ceilings, what_binds
from prior_fast.config.overrides import nearest
from prior_fast.errors import UsageError

DTYPES = ("bfloat16", "float16", "float32")
# Over all calls. What a machine does for its other users changes in seconds and minutes: a call's samples have to lie
# as far apart as two runs do, else their spread says nothing of another run. The ranges of seven draws and of seven
# more of one distribution are disjoint once in 1,716 times.
PASSES = 7
SECONDS = {"cpu": 0.5, "cuda": 0.1}
MOST_GRAPHS = 10_000  # of torch.compile: each shape of each op is one


@dataclass(frozen=True)
class Options:
    """What `prior-fast bench kernels` was asked for; see its --help.

    ops, dtypes, small: empty or None leaves the choice to the device.
    seconds: for each row, all passes together; None: SECONDS of the device.
    compile: torch.compile of the reference at every shape; else on a GPU at the first shape of each kind, and on a CPU
        nowhere.
    """

    device: torch.device
    ops: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    seconds: float | None = None
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

    device, on_gpu = options.device, options.device.type == "cuda"
    seconds = SECONDS[device.type] if options.seconds is None else options.seconds
    if not seconds > 0:
        raise UsageError(f"--seconds {seconds}: wants more than 0")
    small = not on_gpu if options.small is None else options.small
    dtypes = _known("dtype", options.dtypes or (("bfloat16", "float32") if on_gpu else ("float32",)), DTYPES)
    ops = _known("op", options.ops or op_names(), op_names())
    advance("ceilings of this machine")
    ceilings = measure_ceilings(device, dtypes)
    report: dict[str, Any] = {
        "machine": machine(),
        "options": {"device": device.type, "dtypes": dtypes, "seconds": seconds, "passes": PASSES, "small": small},
        "rows": [],
        "left_out": [],
        "problems": [],
    }
    contests: list[Contest] = []
    with _many_graphs() if on_gpu or options.compile else nullcontext():
        for op in ops:
            for dtype in dtypes:
                seen: set[str] = set()
                for case in public_cases(op, device, dtype, small):
                    advance(f"{op} {case.shape}: checks")
                    kind = kind_of(op, case.shape)
                    with_compile = options.compile or (on_gpu and kind not in seen)
                    seen.add(kind)
                    contests += prepare(case, dtype, with_compile, report)
        for number in range(PASSES):
            for contest in contests:
                advance(f"pass {number + 1} of {PASSES}: {contest.case.op} {contest.case.shape}")
                contest.time(seconds / PASSES)
    report["rows"] = [row for contest in contests for row in contest.rows()]
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


@contextmanager
def _many_graphs() -> Iterator[None]:
    """A block in which torch.compile does not give up after the first shapes: all are one function to it."""
    limits = {"recompile_limit": MOST_GRAPHS, "accumulated_recompile_limit": MOST_GRAPHS}
    with torch._dynamo.config.patch(limits):
        yield


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
