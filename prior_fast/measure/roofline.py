"""The least time that a call can take: bytes over a memory's speed, or operations over a chip's rate."""

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

COPY_BYTES = {"cuda": 2**30, "cpu": 2**27}  # of the source; several times what caches hold
# Sides of the product. On a GPU large ones are the fastest; on a busy CPU short ones are disturbed less.
SIDES = {"cuda": (8192,), "cpu": (256, 512, 1024)}
LEAST_SECONDS = 0.3  # of each copy and product: a short look at a busy machine finds it slower than it is
HOST_BOUND = 0.9  # share of a call's time that its host spends starting it
NEAR_LIMIT = 0.3  # share of the limit from which on it is said to bind


@dataclass(frozen=True)
class Ceilings:
    """What a machine reached: bytes/s of a large copy, operations/s of a large product by dtype."""

    name: str
    bandwidth: float
    rates: dict[str, float]


def measure_ceilings(device: torch.device, dtypes: Sequence[str]) -> Ceilings:
    """The best of some large copies and products on `device`; a copy reads and writes each byte.

    A dtype's rate is float32's at least, since its numbers may be widened: many CPUs have no products of 16 bits.
    """
    count = COPY_BYTES[device.type] // 4
    source, target = (torch.zeros(count, device=device) for _ in range(2))
    bandwidth = 2 * 4 * count / _seconds(lambda: target.copy_(source), device)
    wide = _rate(torch.float32, device)
    rates = {name: max(wide, _rate(getattr(torch, name), device)) for name in dtypes if name != "float32"}
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    return Ceilings(kind, bandwidth, rates | {"float32": wide})


def better(a: Ceilings, b: Ceilings) -> Ceilings:
    """The higher of two measurements of one machine."""
    return Ceilings(
        a.name, max(a.bandwidth, b.bandwidth), {name: max(a.rates[name], b.rates[name]) for name in a.rates}
    )


def _rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations/s of the fastest product."""
    found = 0.0
    for side in SIDES[device.type]:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in "ab")
        found = max(found, 2 * side**3 / _seconds(partial(torch.matmul, a, b), device))
    return found


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    """The least of a few, after one that warms up: a ceiling is what the machine can do."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < LEAST_SECONDS:
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def limit(speeds: Speeds, dtype: str, work: Work) -> tuple[float, str]:
    """Seconds that the work takes at least, and which of "memory" and "arithmetic" sets them."""
    return least_time(speeds, dtype, work.least_bytes, work.operations)


def chip_limits(dtype: str, work: Work) -> dict[str, float]:
    """Milliseconds at least on each of the chips of `kernel_report.chips`: computed from data sheets, not measured."""
    return {chip.name: 1e3 * limit(chip, dtype, work)[0] for chip in BOARDS}


def what_binds(seconds: float, least: float, bound: str, host: float | None) -> str:
    """What sets the time of a call.

    "host": starting its work takes as long. "cache": it is faster than the memory allows, so its data were in a cache.
    "memory" or "arithmetic": it is near that limit. "neither": it is far from both, as short calls are.
    """
    if host is not None and host >= HOST_BOUND * seconds:
        return "host"
    share = least / seconds
    if share > 1:
        return "cache" if bound == "memory" else bound
    return bound if share >= NEAR_LIMIT else "neither"


def limits(row: dict[str, Any], ceilings: Ceilings) -> dict[str, Any]:
    """What the ceilings say of a measured row of kernels.json, and the data sheets of other chips."""
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
    """Triton kernels that the call launches; nothing of them runs, so its results are not to be used."""
    from prior_fast.kernels.common.launch import recording

    with recording() as launches:
        run()
    return len(launches)


def launches_of(op: str) -> dict[str, int]:
    """Triton launches of the op's first case, by direction, counted without a GPU; empty where it has none.

    "forward+backward" is their sum. A backward pass without a launcher, in plain PyTorch, is not counted.
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
