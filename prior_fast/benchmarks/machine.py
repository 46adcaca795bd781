"""The machine that a report was measured on. Apart from the rest: reports of single ops need no model to be loaded."""

import platform
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Processor, GPU and versions, as doctor finds them."""
    from prior_fast.cli.doctor import machine as parts
    from prior_fast.cli.doctor import versions

    return {
        "processor": processor(),
        **dict(parts()),
        "threads": torch.get_num_threads(),
        "versions": dict(versions()),
    }


def processor() -> str:
    """The CPU's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
