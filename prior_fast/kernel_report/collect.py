"""Collects the kernel versions that an op's launchers ask for, by calling the launchers without running a kernel."""

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

import prior_fast.kernels
from prior_fast.errors import RunError, UsageError
from prior_fast.kernel_report.specialize import Version, version_of

DTYPES = ("bfloat16", "float16", "float32")
# float16 and bfloat16 compile to similar code, so one of them is enough for shapes that only select code paths.
CONFIGURATION_DTYPES = ("bfloat16", "float32")


@dataclass
class Collected:
    """The kernel versions that the launchers of one op ask for.

    Attributes:
        versions: each version, with the calls that lead to it: (dtype, shape and direction).
        cases: for each call with known bytes and operations, a dictionary for report.json.
    """

    op: str
    versions: dict[Version, list[tuple[str, str]]] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)


def op_names() -> list[str]:
    """The ops that have Triton kernels."""
    return [name for name in _modules() if not name.startswith("_")]


def _modules() -> list[str]:
    return [info.name for info in pkgutil.iter_modules(prior_fast.kernels.__path__) if not info.ispkg]


def require_compiler() -> None:
    """Make sure that Triton compiles kernels instead of interpreting them.

    Triton decides when it is imported; this removes TRITON_INTERPRET from the process's environment before that.

    Raises:
        RunError: Triton is not installed.
        UsageError: Triton was imported in its interpreter mode.
    """
    if "triton" not in sys.modules:
        os.environ.pop("TRITON_INTERPRET", None)
    try:
        import triton.language as tl
        from triton.runtime.jit import JITFunction
    except ImportError as error:
        raise RunError(f"Triton can't be imported ({error}): pip install triton") from None
    if not isinstance(tl.cdiv, JITFunction):
        raise UsageError(
            "Triton was already imported with TRITON_INTERPRET=1 and can't compile kernels: "
            "run `prior-fast kernels report` in its own process"
        )
    os.environ.pop("TRITON_INTERPRET", None)


def collect(op: str) -> Collected:
    """Run the op's `cases`, and its `configurations` if it has any, on tensors without data.

    Raises:
        RunError: the op has no bench file, or a call of it fails.
    """
    bench = _bench(op)
    found = Collected(op)
    for dtype in DTYPES:
        for case in bench.cases(torch.device("meta"), getattr(torch, dtype)):
            launches = _record(found, dtype, f"{case.shape} {case.direction}", case.run)
            found.cases.append(
                {
                    "op": op,
                    "shape": case.shape,
                    "direction": case.direction,
                    "dtype": dtype,
                    "launches": launches,
                    "bytes": case.least_bytes,
                    "operations": case.operations,
                }
            )
    for dtype in CONFIGURATION_DTYPES if hasattr(bench, "configurations") else ():
        for number, run in enumerate(bench.configurations(torch.device("meta"), getattr(torch, dtype))):
            _record(found, dtype, f"configuration {number}", run)
    return found


def _bench(op: str) -> ModuleType:
    try:
        return importlib.import_module(f"prior_fast.bench.{op}")
    except ModuleNotFoundError as error:
        if error.name != f"prior_fast.bench.{op}":
            raise
        raise RunError(f"the op {op} has kernels but no bench/{op}.py that gives their shapes") from None


def _record(found: Collected, dtype: str, who: str, run: Callable[[], object]) -> int:
    """Record the versions of one call; returns the number of its launches."""
    from prior_fast.kernels.common.launch import recording

    try:
        with recording() as launches:
            run()
        for launch in launches:
            origins = found.versions.setdefault(version_of(launch), [])
            if (dtype, who) not in origins:
                origins.append((dtype, who))
    except Exception as error:
        raise RunError(f"bench/{found.op}.py, {who}, {dtype}: {type(error).__name__}: {error}") from error
    return len(launches)


def idle(collected: Sequence[Collected]) -> list[str]:
    """Kernels of the ops' files that no collected call launches. Kernels are functions whose names end in `_kernel`.

    Files that ops share are included only if all ops were collected.
    """
    ops = {found.op for found in collected}
    files = _modules() if ops == set(op_names()) else ops
    launched = {version.kernel for found in collected for version in found.versions}
    kernels = {
        name
        for file in files
        for name, value in vars(importlib.import_module(f"prior_fast.kernels.{file}")).items()
        if name.endswith("_kernel") and hasattr(value, "fn")
    }
    return sorted(kernels - launched)
