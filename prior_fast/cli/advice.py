"""What `prior-fast doctor` says first: whether this machine can train, and what is missing."""

from collections.abc import Mapping, Sequence
from typing import Any

MEASURE = "How fast it trains is not known until it is measured: prior-fast bench train --preset tiny --batch 32"


def advice(
    software: Mapping[str, str],
    hardware: Mapping[str, str],
    libraries: Mapping[str, str | None],
    ops: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Lines for a user who does not know the parts below.

    Args:
        software: versions by package; "not installed..." for a missing one.
        hardware: the parts of `prior_fast.hardware.machine.parts`.
        libraries: by kind of compiled library, why it can't be used; None if it can.
        ops: the rows of `prior_fast.cli.doctor.backends`.
    """
    missing = _missing(software, hardware, libraries)
    broken = [f"{op['op']} can't be computed: {op['why']}" for op in ops if op["backend"] == "none"]
    lines = [f"This machine can't train: {broken[0]}"] if broken else [_where(hardware), MEASURE]
    return [*lines, *(f"Missing: {each}" for each in missing)] if missing else [*lines, "Nothing is missing."]


def _where(hardware: Mapping[str, str]) -> str:
    """The line on what it trains."""
    gpus = _gpus(hardware)
    if gpus:
        others = f" and {len(gpus) - 1} more" if len(gpus) > 1 else ""
        return f"This machine can train on a GPU: {gpus[0]}{others}."
    cores = f"{hardware['CPU cores']} CPU cores and {hardware['memory']} of memory"
    return (
        f"This machine can train on {cores}; torch finds no GPU. The preset tiny is made for CPUs; paper and released "
        "have the full-size model."
    )


def _missing(
    software: Mapping[str, str], hardware: Mapping[str, str], libraries: Mapping[str, str | None]
) -> list[str]:
    """What is missing, and what to do about it."""
    found = [
        f"{name}: {version.removeprefix('not installed: ')}"
        for name, version in software.items()
        if version.startswith("not installed") and "optional" not in version
    ]
    gpus = _gpus(hardware)
    for kind, reason in libraries.items():
        # Without a GPU nothing needs the library for GPUs.
        if reason is not None and (kind != "cuda" or gpus):
            found.append(f"{reason} (until then other code serves)")
    if hardware["CUDA of torch"].startswith("none"):
        found.append("support of GPUs: torch is a CPU build; if there is a GPU, install a build of torch with CUDA")
    return found


def _gpus(hardware: Mapping[str, str]) -> list[str]:
    return [what for name, what in hardware.items() if name.startswith("GPU ")]
