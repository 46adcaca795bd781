"""Launching a Triton kernel, or recording what would be launched.

Every launcher of this folder calls `launch`. Inside `recording()` nothing runs: the calls are collected, with the types
of their arguments and the constants that the launcher chose. So the kernel report and the counts of launches get every
configuration from the code that chooses it, without a GPU and on tensors of any device.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Of every kernel. Products and sums may be fused into one rounding, said out loud: Triton 3.10 changes its default.
OPTIONS = {"enable_fp_fusion": True}

_calls: "list[Launch] | None" = None


@dataclass(frozen=True)
class Launch:
    """One launch: the kernel, its grid, what it was given by name, and how it is to be compiled."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    num_warps: int
    num_stages: int


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: dict[str, Any],
    constants: dict[str, Any],
    *,
    num_warps: int = 4,
    num_stages: int = 1,
) -> None:
    """Run `kernel` over `grid`, on the device of its first tensor; an empty grid runs nothing.

    arguments: tensors and numbers by parameter name; constants: the kernel's constexpr parameters.
    """
    if 0 in grid:
        return
    if _calls is not None:
        _calls.append(Launch(kernel, grid, arguments, constants, num_warps, num_stages))
        return
    with _device_of(arguments):
        kernel[grid](**arguments, **constants, num_warps=num_warps, num_stages=num_stages, **OPTIONS)


@contextlib.contextmanager
def recording() -> Iterator[list[Launch]]:
    """A block in which launches are collected, and not run."""
    global _calls
    # Blocks nest: the inner one takes the calls, and the outer one goes on after it.
    before, _calls = _calls, []
    try:
        yield _calls
    finally:
        _calls = before


def _device_of(arguments: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device, whatever device its tensors are on."""
    import torch

    device = next(value.device for value in arguments.values() if isinstance(value, torch.Tensor))
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
