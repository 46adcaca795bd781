"""Sets up one or several processes: those of torchrun, or those that a run on a CPU starts by itself."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.distributed
from torch.distributed import ProcessGroup

from prior_fast.errors import UsageError
from prior_fast.model.exchange import Exchange
from prior_fast.training.job import Job
from prior_fast.training.local_processes import LocalProcesses, local_threads, process_count


@dataclass(frozen=True)
class Ranks:
    """This process and the group of processes that train together.

    Attributes:
        rank, count: the number of this process, and the number of processes.
        group: the process group; None in a single process, and before the processes have met.
        device: where this process computes.
        meet: waits for the other processes and makes the group; None if there is nothing to wait for.
        exchange: between the processes of one machine that a run has started; None for those of torchrun.
    """

    rank: int
    count: int
    group: ProcessGroup | None
    device: torch.device
    meet: Callable[[], ProcessGroup] | None = None
    exchange: Exchange | None = None

    @property
    def writes(self) -> bool:
        """Whether this process writes files and prints messages."""
        return self.rank == 0

    def joined(self) -> "Ranks":
        """The same ranks with their group; waits for the other processes."""
        return self if self.meet is None else replace(self, group=self.meet(), meet=None)

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
def join_ranks(job: Job) -> Iterator[Ranks]:
    """This process's `Ranks`.

    Under torchrun the group is ready (gloo on the CPU, NCCL on GPUs). On a CPU this process may start others, which
    share its batches (`local_processes.process_count`). They load while it loads, and `Ranks.joined` waits for them.
    They end with the context.

    Raises:
        UsageError: the setting `processes` does not go with the device or with torchrun.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(job.config.device, int(os.environ.get("LOCAL_RANK", "0")))
    local = process_count(job.config, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if local > 1:
        with quiet_about_names(), local_threads(local), LocalProcesses(job, local) as others:
            yield Ranks(0, local, None, device, others.meet, others.exchange)
        return
    if count == 1:
        yield Ranks(0, 1, None, device)
        return
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        group = torch.distributed.group.WORLD
        yield Ranks(torch.distributed.get_rank(), count, group, device)
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def quiet_about_names() -> Iterator[None]:
    """A context without torch's warnings that newer versions have other names for what this package calls.

    A user who did not ask for several processes would see them.
    """
    with warnings.catch_warnings():
        for name in ("broadcast_buffers", "torch.distributed.all_gather_into_tensor"):
            warnings.filterwarnings("ignore", rf"`{name}` is deprecated", FutureWarning)
        yield
