"""Describes the machine, for `prior-fast doctor` and for the result file of every measurement."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

from prior_fast.hardware.versions import versions
from prior_fast.processes import usable_cores


def describe_machine() -> dict[str, Any]:
    """Processor, memory, GPUs, threads and versions, for a result file."""
    return {
        "processor": processor(),
        **dict(parts()),
        "threads": torch.get_num_threads(),
        "versions": dict(versions()),
    }


def parts() -> list[tuple[str, str]]:
    """System, cores, memory and GPUs, as pairs of a name and a description."""
    rows = [("system", f"{platform.system()} {platform.machine()}"), ("CPU cores", str(usable_cores()))]
    rows.append(("memory", memory()))
    rows.append(("CUDA of torch", torch.version.cuda or "none: torch is a CPU build"))
    if not torch.cuda.is_available():
        return [*rows, ("GPU", "none")]
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        capability = f"compute capability {facts.major}.{facts.minor}"
        rows.append((f"GPU {index}", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {capability}"))
    return rows


def memory() -> str:
    """The machine's memory."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown on this system"
    return f"{size / 2**30:.0f} GiB"


def processor() -> str:
    """The CPU's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
