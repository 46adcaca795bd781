"""Sets up one or several processes from torchrun's environment variables."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch.distributed import ProcessGroup

from prior_fast.config import RunConfig
from prior_fast.errors import UsageError


@dataclass(frozen=True)
class Ranks:
    """This process and the group of processes that train together.

    Attributes:
        rank, count: the number of this process, and the number of processes.
        group: the process group; None in a single process.
        device: where this process computes.
    """

    rank: int
    count: int
    group: ProcessGroup | None
    device: torch.device

    @property
    def writes(self) -> bool:
        """Whether this process writes files and prints messages."""
        return self.rank == 0

    def barrier(self) -> None:
        if self.group is not None:
            torch.distributed.barrier(self.group)


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that a value of the setting `device` selects on this machine.

    Raises:
        UsageError: "cuda" is selected and there is no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device=cuda: torch finds no GPU here; use device=cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


@contextmanager
def join_ranks(config: RunConfig) -> Iterator[Ranks]:
    """This process's `Ranks`, with a process group under torchrun (gloo on the CPU, NCCL on GPUs)."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(config.device, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if count == 1:
        yield Ranks(0, 1, None, device)
        return
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        group = torch.distributed.group.WORLD
        yield Ranks(torch.distributed.get_rank(), count, group, device)
    finally:
        torch.distributed.destroy_process_group()
