"""Processes of one thread that share the batches of a run on a CPU.

Threads of one process wait for each other in every layer. Processes wait only where they exchange sums.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import torch
import torch.distributed
from torch.distributed import ProcessGroup

from prior_fast.config import RunConfig
from prior_fast.errors import RunError, UsageError
from prior_fast.model import exchange
from prior_fast.model.exchange import Exchange, open_memory
from prior_fast.processes import usable_cores
from prior_fast.training.job import Job
from prior_fast.training.local_group import all_came, leave_group, make_group, open_store, over_loopback
from prior_fast.training.signals import SIGNALS

FEWEST = 4  # with two cores, one process whose branches run at once takes less time for a step than two processes
MOST = 4  # more processes exchange more for smaller parts of a batch; not measured
# The exit codes by which a process reports the errors that the first one raises again.
USAGE, FAILED, BROKEN = 2, 1, 70
_LATEST_NEWS = 5.0  # seconds between a lost connection and the end of the process that closed it, at most
_LAST_STEPS = 60.0  # seconds that the others may take to end after the last step


def process_count(config: RunConfig, device: torch.device) -> int:
    """The number of processes that share a batch on this machine's CPU, this one included.

    With processes=0 it is the largest divisor of the batch size that is at most the threads that torch would use, the
    cores and MOST; with fewer than FEWEST threads or cores it is 1 (`prior_fast.training.branches`).

    Raises:
        UsageError: `processes` is over 1 on a GPU, or where torchrun or Slurm start the processes.
    """
    reasons = {
        f"device={device.type}": device.type != "cpu",
        "the environment variable WORLD_SIZE, by which torchrun or Slurm start the processes": (
            "WORLD_SIZE" in os.environ
        ),
        "a process group of torch.distributed that exists already": torch.distributed.is_initialized(),
    }
    reason = next((name for name, holds in reasons.items() if holds), None)
    if reason and config.processes > 1:
        raise UsageError(
            f"processes={config.processes} does not go with {reason}: it is for one machine's CPU; leave it at 0, and "
            "use torchrun for several GPUs"
        )
    # With statistics of each process's own, the number of processes would change the model.
    if reason or (config.processes == 0 and not config.sync_batch_norm):
        return 1
    if config.processes:
        return config.processes
    most = min(torch.get_num_threads(), usable_cores(), MOST)
    if most < FEWEST:
        return 1
    return max(count for count in range(1, max(most, 1) + 1) if config.batch_size % count == 0)


@contextmanager
def local_threads(count: int) -> Iterator[None]:
    """A context in which this process uses its share, one of `count`, of the threads that torch would use."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(before // count, 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class LocalProcesses:
    """The other processes of a run, which this one starts: a context that ends them.

    Each runs `prior_fast.training.worker`, which does not import the caller's main module: a script needs no
    `if __name__ == "__main__"`. The job goes through its standard input, which stays open: a worker ends when it is
    closed, and so with this process. A worker leads a process group, which is ended with what the worker has started.

    Raises on exit:
        UsageError, RunError: the error that ended another process, in place of the lost connection to it.
    """

    def __init__(self, job: Job, count: int) -> None:
        self.job, self.count = job, count
        self._store = open_store()
        self._loopback = over_loopback()
        self._started: list[tuple[subprocess.Popen, IO[bytes]]] = []
        self._ends = connect_all(count)
        self._memory = open_memory(count)
        self.exchange = Exchange(0, self._ends[0], self._memory)

    def __enter__(self) -> "LocalProcesses":
        self._loopback.__enter__()
        try:
            for rank in range(1, self.count):
                self._start(rank)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._wait()
            # Raised by torch where a connection is lost. A worker's own error is the cause and is told instead.
            elif isinstance(error, RuntimeError):
                if (cause := self._failure(_LATEST_NEWS)) is not None:
                    raise cause from error
                if "timed out" in str(error).lower():  # torch's own exchanges
                    raise RunError(exchange.silent(self.count, self.count)) from error
        finally:
            self._end()

    def meet(self) -> ProcessGroup:
        """Wait for the other processes and make the group.

        Raises:
            UsageError, RunError: one of them has ended, or does not come.
        """
        until = time.monotonic() + exchange.PATIENCE
        while not all_came(self._store, self.count):
            if (error := self._failure()) is not None:
                raise error
            if time.monotonic() > until:
                raise RunError(exchange.silent(self.count, self.count))
            time.sleep(0.01)
        return make_group(self._store, 0, self.count)

    def _start(self, rank: int) -> None:
        said = tempfile.TemporaryFile()  # noqa: SIM115
        ends = {other: end.fileno() for other, end in self._ends[rank].items()}
        sockets = ",".join(f"{other}:{number}" for other, number in ends.items())
        words = {"rank": rank, "count": self.count, "port": self._store.port, "sockets": sockets}
        words["memory"] = self._memory
        threads = torch.get_num_threads()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            # It finds the modules that this process finds; -P keeps files beside the user out of the way.
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        }
        command = [sys.executable, "-P", "-m", "prior_fast.training.worker"]
        command += [f"--{name}={value}" for name, value in words.items()]
        # The worker inherits the mask: a stop signal to the whole job can't end it before it handles signals.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                bufsize=0,
                process_group=0,
                pass_fds=[*ends.values(), self._memory],
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        # Only the worker has its ends now: they are closed when it ends.
        for end in self._ends[rank].values():
            end.close()
        self._started.append((process, said))
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # `meet` finds that it has ended
            process.stdin.write(self.job.to_json().encode() + b"\n")

    def _failure(self, patience: float = 0.0) -> UsageError | RunError | None:
        """The error of a worker that has failed, or does within `patience` seconds."""
        until = time.monotonic() + patience
        while True:
            for rank, (process, said) in enumerate(self._started, start=1):
                if process.poll():
                    return self._error(rank, process.returncode, said)
            if time.monotonic() >= until:
                return None
            time.sleep(0.01)

    def _error(self, rank: int, code: int, said: IO[bytes]) -> UsageError | RunError:
        said.seek(0)
        last = (said.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
        if code == USAGE:
            return UsageError(last)
        if code == FAILED:
            return RunError(last)
        advice = "; --resume auto goes on from the last checkpoint"
        if code < 0:
            name = signal.Signals(-code).name
            memory = " (SIGKILL may mean that memory ran out; processes=1 needs less)" if name == "SIGKILL" else ""
            return RunError(f"process {rank + 1} of {self.count} was ended by {name}{memory}{advice}")
        return RunError(f"process {rank + 1} of {self.count} failed: {last}{advice}")

    def _wait(self) -> None:
        """Let the others, which have taken the last step, close what they opened."""
        until = time.monotonic() + _LAST_STEPS
        for process, _ in self._started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(until - time.monotonic(), 0.0))

    def _end(self) -> None:
        for process, said in self._started:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            assert process.stdin is not None
            process.stdin.close()
            said.close()
        for ends in self._ends:
            for end in ends.values():
                end.close()
        os.close(self._memory)
        leave_group()
        self._loopback.__exit__(None, None, None)


def connect_all(count: int) -> list[dict[int, socket.socket]]:
    """For each of `count` processes the ends of its connections to the others, by their rank."""
    ends: list[dict[int, socket.socket]] = [{} for _ in range(count)]
    for one in range(count):
        for other in range(one + 1, count):
            ends[one][other], ends[other][one] = socket.socketpair()
    return ends
