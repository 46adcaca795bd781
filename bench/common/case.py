"""What a benchmark of an op runs, and the least work that it stands for."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Case:
    """One call of an op's launchers, or of its public function, on inputs that are ready.

    Attributes:
        op: the op's name.
        shape: what sets the case apart, in a few words: "B=128 S=1100 D=768".
        direction: "forward" or "backward".
        run: makes the call; its tensors were made on the device that `cases` was asked for ("meta" to count only).
        least_bytes: what has to be read and written once, were the chip's caches endless.
        operations: additions and multiplications that the formula asks for.
    """

    op: str
    shape: str
    direction: str
    run: Callable[[], object]
    least_bytes: int
    operations: int


@dataclass(frozen=True)
class Work:
    """The least that a call has to do: bytes read and written once, additions and multiplications."""

    least_bytes: int
    operations: int


@dataclass(frozen=True)
class Public:
    """One call of a public function, and who else computes the same from the same tensors.

    Attributes:
        op: the op's name.
        shape: what sets the case apart, in a few words.
        call: the function, without its tensors; takes them in order, and `backend`.
        inputs: its tensors, on the device and of the dtype that `public` was asked for ("meta" to count only).
        forward: of the forward pass.
        both: of forward and backward pass together; None where there is no gradient.
        wanted: positions in `inputs` of the tensors that get a gradient.
        axis: what varies from this case to others of the op, "batch" say; PRIOR's own shape has "batch".
        at: the value there.
        others: competitors by name, called with `inputs`; words say why one can't be here. The op's other backends and
            torch.compile of the reference need not be named, but for words that keep a backend out.
        truth: what the output has to be, from `inputs`; None: what the reference makes of them in float64.
        judged: what is compared, from the output and the inputs: totals where several answers are right.
        compiles: whether the reference is something that torch.compile can speed up.
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
    """Reports of a batch: PRIOR's 128 and up to eight times that; small, what two CPU cores do in milliseconds."""
    return (16, 32, 64) if small else (128, 256, 512, 1024)


def missing(package: str, pip: str) -> str | None:
    """Why a competitor can't be here; None where its package is installed."""
    return None if importlib.util.find_spec(package) else f"not installed: pip install {pip}"


def offsets(lengths: list[int], device: torch.device) -> torch.Tensor:
    """int32 offsets of segments of the given lengths; on "meta" only their number counts."""
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)


def size(*tensors: torch.Tensor) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def report_lengths(reports: int) -> list[int]:
    """Sentences of each report, 1 to 16, 8.6 in the mean: about 1,100 for PRIOR's 128 reports."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, 16, (reports,), generator=generator).tolist()
