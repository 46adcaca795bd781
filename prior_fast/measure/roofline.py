"""The least time that a call can take: bytes over memory bandwidth, or operations over a chip's rate."""

import importlib
import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from prior_fast.bench.common.case import Work
from prior_fast.hardware.chips import BOARDS, Speeds, least_time

COPY_BYTES = {"cuda": 2**30, "cpu": 2**27}  # of the copied tensor; several times the caches' size
# Sides of the square matrix products. Large ones are fastest on a GPU; short ones are disturbed less on a busy CPU.
SIDES = {"cuda": (8192,), "cpu": (256, 512, 1024)}
LEAST_SECONDS = 0.3  # for each copy and product; a shorter measurement underestimates a busy machine
HOST_BOUND = 0.9  # least share of a call's time that the host's start takes if the host binds
NEAR_LIMIT = 0.3  # least share of the limit if that limit binds


@dataclass(frozen=True)
class Ceilings:
    """Measured peak rates of a machine: bytes/s of a large copy, operations/s of a large matrix product by dtype."""

    name: str
    bandwidth: float
    rates: dict[str, float]


def measure_ceilings(device: torch.device, dtypes: Sequence[str]) -> Ceilings:
    """The best rates of several large copies and matrix products on `device`; a copy reads and writes each byte.

    A dtype's rate is at least float32's, since its numbers can be converted to float32: many CPUs have no 16-bit
    products.
    """
    count = COPY_BYTES[device.type] // 4
    source, target = (torch.zeros(count, device=device) for _ in range(2))
    bandwidth = 2 * 4 * count / _seconds(lambda: target.copy_(source), device)
    wide = _rate(torch.float32, device)
    rates = {name: max(wide, _rate(getattr(torch, name), device)) for name in dtypes if name != "float32"}
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    return Ceilings(kind, bandwidth, rates | {"float32": wide})


def better(a: Ceilings, b: Ceilings) -> Ceilings:
    """The higher rates of two measurements of one machine."""
    return Ceilings(
        a.name, max(a.bandwidth, b.bandwidth), {name: max(a.rates[name], b.rates[name]) for name in a.rates}
    )


def _rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations/s of the fastest matrix product."""
    found = 0.0
    for side in SIDES[device.type]:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in "ab")
        found = max(found, 2 * side**3 / _seconds(partial(torch.matmul, a, b), device))
    return found


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    """The minimum of several runs after a warm-up run: a ceiling is the best that the machine can do."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < LEAST_SECONDS:
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def limit(speeds: Speeds, dtype: str, work: Work) -> tuple[float, str]:
    """The least seconds for the work, and what sets them: "memory" or "arithmetic"."""
    return least_time(speeds, dtype, work.least_bytes, work.operations)


def chip_limits(dtype: str, work: Work) -> dict[str, float]:
    """The least milliseconds on each chip of `prior_fast.hardware.chips.BOARDS`, from data sheets, not measured."""
    return {chip.name: 1e3 * limit(chip, dtype, work)[0] for chip in BOARDS}


def what_binds(seconds: float, least: float, bound: str, host: float | None) -> str:
    """What sets the time of a call.

    "host": starting the call takes the host as long. "cache": the call is faster than memory allows, so its data were
    in a cache. "memory" or "arithmetic": the call is near that limit. "neither": the call is far from both limits, as
    short calls are.
    """
    if host is not None and host >= HOST_BOUND * seconds:
        return "host"
    share = least / seconds
    if share > 1:
        return "cache" if bound == "memory" else bound
    return bound if share >= NEAR_LIMIT else "neither"


def limits(row: dict[str, Any], ceilings: Ceilings) -> dict[str, Any]:
    """The limits of a measured row of kernels.json, from the machine's ceilings and from data sheets of other chips."""
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


def record_launches(run: Callable[[], Any]) -> int:
    """Number of Triton kernels that the call launches. The kernels do not run, so the call's results are invalid."""
    from prior_fast.kernels.common.launch import recording

    with recording() as launches:
        run()
    return len(launches)


def launches_of(op: str) -> dict[str, int]:
    """Triton launches of the op's first case, by direction, counted without a GPU; empty if the op has no kernels.

    "forward+backward" is their sum. A backward pass in plain PyTorch has no launcher and is not counted.
    """
    if importlib.util.find_spec("triton") is None:
        return {}
    bench = importlib.import_module(f"prior_fast.bench.{op}")
    if importlib.util.find_spec(f"prior_fast.kernels.{op}") is None:
        return {}
    found: dict[str, int] = {}
    for case in bench.cases(torch.device("meta"), torch.bfloat16):
        if case.direction in found:
            break
        found[case.direction] = record_launches(case.run)
    return found | {"forward+backward": sum(found.values())}
