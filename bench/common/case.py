"""The calls of an op's benchmark, and the least work that each requires."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Case:
    """One call of an op's launchers, or of its public function, with its inputs.

    Attributes:
        op: the op's name.
        shape: a short description that distinguishes the case: "B=128 S=1100 D=768".
        direction: "forward" or "backward".
        run: makes the call; its tensors are on the device that was passed to `cases` ("meta" only counts).
        least_bytes: bytes that must be read and written once, as if the chip's caches were unlimited.
        operations: additions and multiplications in the formula.
    """

    op: str
    shape: str
    direction: str
    run: Callable[[], object]
    least_bytes: int
    operations: int


@dataclass(frozen=True)
class Work:
    """The least work of a call: bytes read and written once, additions and multiplications."""

    least_bytes: int
    operations: int


@dataclass(frozen=True)
class Public:
    """One call of a public function, and its competitors on the same tensors.

    Attributes:
        op: the op's name.
        shape: a short description that distinguishes the case.
        call: the function; takes the tensors in order, and `backend`.
        inputs: its tensors, on the device and of the dtype that were passed to `public` ("meta" only counts).
        forward: work of the forward pass.
        both: work of forward and backward pass together; None if there is no gradient.
        wanted: positions in `inputs` of the tensors that get a gradient.
        axis: what varies between this and other cases of the op, for example "batch"; PRIOR's own shape has "batch".
        at: the value on that axis.
        others: competitors by name: functions of `inputs`, or strings with the reason why one can't be timed. The op's
            other backends and torch.compile of the reference are timed without being named here; a string under a
            backend's name leaves it out.
        truth: computes the expected output from `inputs`; None: the reference in float64.
        judged: computes what is compared from the output and the inputs, such as totals if several answers are
            correct; None: the output itself.
        compiles: whether torch.compile can speed up the reference.
    """

    op: str
    shape: str
    call: Callable[..., Any]
    inputs: tuple[torch.Tensor, ...]
    forward: Work
    both: Work | None = None
    wanted: tuple[int, ...] = ()
    axis: str = "batch"
    at: int = 0
    others: Mapping[str, Callable[..., Any] | str] = field(default_factory=dict)
    truth: Callable[..., Any] | None = None
    judged: Callable[..., Any] | None = None
    compiles: bool = True


def batches(small: bool) -> tuple[int, ...]:
    """Reports per batch: PRIOR's 128 and up to eight times that; if small, batches that two CPU cores process in
    milliseconds."""
    return (16, 32, 64, 128) if small else (128, 256, 512, 1024)


def missing(package: str, pip: str) -> str | None:
    """Why a competitor can't be timed; None if its package is installed."""
    return None if importlib.util.find_spec(package) else f"not installed: pip install {pip}"


def offsets(lengths: list[int], device: torch.device) -> torch.Tensor:
    """int32 offsets of segments of the given lengths; on "meta" only their number matters."""
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)


def size(*tensors: torch.Tensor) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def report_lengths(reports: int) -> list[int]:
    """Sentences of each report, 2 to 15: 1,034 for PRIOR's 128 reports (8.1 on average), 8,802 for 1,024 (8.6)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, 16, (reports,), generator=generator).tolist()
