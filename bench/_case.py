"""What a benchmark of an op runs, and the least work that it stands for."""

from collections.abc import Callable
from dataclasses import dataclass

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
