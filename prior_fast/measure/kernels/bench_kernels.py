"""`prior-fast bench kernels`: compares each public op with its competitors and its physical limit."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import prior_fast.bench
from prior_fast.bench.common.case import Public
from prior_fast.errors import UsageError
from prior_fast.measure.kernels.contest import entries
from prior_fast.measure.kernels.file import Sheet
from prior_fast.measure.kernels.schedule import PASSES, Limit, groups, measure
from prior_fast.measure.roofline import measure_ceilings
from prior_fast.spelling import nearest

DTYPES = ("bfloat16", "float16", "float32")
SECONDS = {"cpu": 0.5, "cuda": 0.1}
MOST_GRAPHS = 10_000  # of torch.compile; each shape of each op needs one


@dataclass(frozen=True)
class OpsOptions:
    """Options of `prior-fast bench kernels`; see its --help.

    ops: empty: all.
    dtypes, small: empty or None: the device's defaults.
    seconds: for each row, over all passes; None: SECONDS of the device.
    compile: time torch.compile of the reference at every shape. If false, a GPU times it at PRIOR's own shapes in the
        first dtype, and a CPU does not time it.
    limit: work that has not begun within it is left out.
    """

    device: torch.device
    ops: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    seconds: float | None = None
    small: bool | None = None
    compile: bool = False
    out: Path | None = None
    limit: Limit = field(default_factory=Limit)


def op_names() -> list[str]:
    """The ops whose bench file has public calls."""
    names = [info.name for info in pkgutil.iter_modules(prior_fast.bench.__path__) if not info.ispkg]
    return [name for name in names if not name.startswith("_") and hasattr(_bench(name), "public")]


def _bench(name: str) -> Any:
    if name == "conftest" or name.startswith("test_"):  # pytest's files in the same folder
        return None
    return importlib.import_module(f"prior_fast.bench.{name}")


def public_cases(op: str, device: torch.device, dtype: str, small: bool) -> Iterator[Public]:
    """The op's public calls, with the same inputs each time."""
    torch.manual_seed(0)
    yield from _bench(op).public(device, getattr(torch, dtype), small)


def run_kernels(options: OpsOptions, advance: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Check and time every case; returns the content of kernels.json. Calls that fail their check are its `problems`.

    With `options.out`, kernels.json is written from the first pass on and grows; see `measure.kernels.file.Sheet`.

    Raises:
        UsageError: an op or dtype is unknown, a time is not above 0, or the rows of other ops in `out` have another
            machine or other options.
    """
    from prior_fast.hardware.machine import describe_machine

    device, on_gpu = options.device, options.device.type == "cuda"
    seconds = SECONDS[device.type] if options.seconds is None else options.seconds
    for name, value in (("seconds", seconds), ("limit", options.limit.seconds)):
        if value is not None and not value > 0:
            raise UsageError(f"--{name} {value}: must be more than 0")
    small = not on_gpu if options.small is None else options.small
    dtypes = _known("dtype", options.dtypes or (("bfloat16", "float32") if on_gpu else ("float32",)), DTYPES)
    ops = _known("op", options.ops or op_names(), op_names())
    advance("ceilings of this machine")
    asked = {"device": device.type, "dtypes": dtypes, "seconds": seconds, "passes": PASSES, "small": small}
    sheet = Sheet(options.out, ops, op_names(), describe_machine(), asked, measure_ceilings(device, dtypes))

    with _many_graphs() if on_gpu or options.compile else nullcontext():
        if on_gpu or options.limit.seconds is not None:
            # A GPU without other users should give the same times from second to second (not measured yet). So each
            # call is finished before the next begins, and the most important results are written first.
            compiled = dtypes if options.compile else dtypes[:1] if on_gpu else ()
            for op in ops:
                cases = [(dtype, case) for dtype in dtypes for case in public_cases(op, device, dtype, small)]
                measure([op], groups(cases, compiled, options.compile), seconds, options.limit, sheet, advance)
        else:
            # The load of a shared CPU changes within seconds and minutes. So each pass goes over all ops: a call's
            # samples are spread over the whole run, and their spread is as large as the difference between two runs.
            cases = [(dtype, case) for op in ops for dtype in dtypes for case in public_cases(op, device, dtype, small)]
            everything = [entry for dtype, case in cases for entry in entries(case, dtype, options.compile)]
            measure(ops, iter([everything]), seconds, options.limit, sheet, advance)
    if options.limit.left > 0:
        # Other work on the machine lowers the measured ceilings: measure again and keep the higher rates.
        advance("ceilings of this machine")
        sheet.better(measure_ceilings(device, dtypes))
    sheet.save()
    return sheet.report()


def _known(what: str, words: Sequence[str], known: Sequence[str]) -> list[str]:
    for word in words:
        if word not in known:
            hint = nearest(word, list(known)) or f": choose from {', '.join(known)}"
            raise UsageError(f"unknown {what} {word!r}{hint}")
    return list(dict.fromkeys(words))


@contextmanager
def _many_graphs() -> Iterator[None]:
    """Context manager: raises torch.compile's recompile limits, since all shapes are recompilations of one function."""
    limits = {"recompile_limit": MOST_GRAPHS, "accumulated_recompile_limit": MOST_GRAPHS}
    with torch._dynamo.config.patch(limits):
        yield
