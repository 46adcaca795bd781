"""Sums and gathers over the processes of one machine: small tensors through sockets, others through shared memory.

gloo hands a tensor from thread to thread, and its thread polls a socket whose data nobody awaits yet. With the forty
exchanges of a small model's step this takes a fifth of the processor time. Here the calling thread writes and reads.
"""

import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from prior_fast.errors import RunError

# Less than what a socket of Linux or macOS buffers: no process waits to write while the others do.
LARGEST = 1 << 16
# Bytes of shared memory that a process writes at once. It has two such parts: one is written while another process may
# still read the other.
PART = 1 << 21
# Seconds without an answer after which a process is given up: one that was stopped would be waited for without end.
PATIENCE = 900


class Exchange:
    """The connections of this process to the others.

    Every process must call the methods in the same order, with tensors of the same shapes and dtypes on the CPU.

    rank: the number of this process.
    others: the sockets to the others, by their rank.
    memory: the file of `open_memory`, open in every process.

    Raises in all methods:
        RuntimeError: another process has closed its connection.
        RunError: another process does not answer.
    """

    def __init__(self, rank: int, others: Mapping[int, socket.socket], memory: int) -> None:
        self.rank, self.others = rank, dict(sorted(others.items()))
        self.count = len(self.others) + 1
        self._memory = mmap.mmap(memory, self.count * 2 * PART)
        self._second = False
        for other in self.others.values():
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                other.setsockopt(socket.SOL_SOCKET, option, 2 * LARGEST)
            # Of the system: Python's own timeout would cost a further call for each read.
            other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", PATIENCE, 0))

    def sum_(self, x: Tensor) -> Tensor:
        """Replace `x`, contiguous, by its sum over the processes; the same bits in each of them."""
        if x.numel() * x.element_size() <= LARGEST:
            # In the order of the ranks, so that all round alike.
            _add(x, self._through_sockets(x))
        else:
            for place, parts in self._through_memory(x.view(-1)):
                _add(x.view(-1)[place], parts)
        return x

    def gather(self, x: Tensor) -> Tensor:
        """The tensors x [N, ...] of all processes in the order of their ranks: [processes N, ...]."""
        x = x.contiguous()
        gathered = x.new_empty(self.count, x.numel())
        for place, parts in self._through_memory(x.view(-1)):
            for row, part in zip(gathered, parts):
                row[place] = part
        return gathered.view(-1, *x.shape[1:])

    def close(self) -> None:
        for other in self.others.values():
            other.close()

    def _through_sockets(self, x: Tensor) -> list[Tensor]:
        """The tensors of all processes; each must be small."""
        parts = [x.clone() if rank == self.rank else torch.empty_like(x) for rank in range(self.count)]
        self._swap(_bytes(x), {rank: _bytes(parts[rank]) for rank in self.others})
        return parts

    def _through_memory(self, x: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
        """Parts of x [N], and the same parts of all processes, which are valid until the next one is asked for."""
        most = PART // x.element_size()
        for begin in range(0, x.numel(), most):
            place = slice(begin, min(begin + most, x.numel()))
            parts = [self._part(rank, x.dtype, place.stop - begin) for rank in range(self.count)]
            parts[self.rank].copy_(x[place])
            # All have written. Who is here has read what was in the other half, which is written next.
            self._swap(b"\0", {rank: bytearray(1) for rank in self.others})
            self._second = not self._second
            yield place, parts

    def _part(self, rank: int, dtype: torch.dtype, numbers: int) -> Tensor:
        offset = (2 * rank + self._second) * PART
        return torch.frombuffer(self._memory, dtype=dtype, count=numbers, offset=offset)

    def _swap(self, own: Any, theirs: Mapping[int, Any]) -> None:
        """Send bytes to all others and read as many from each."""
        try:
            for other in self.others.values():
                other.sendall(own)
            for rank, other in self.others.items():
                _read(other, memoryview(theirs[rank]))
        except BlockingIOError:
            raise RunError(silent(rank + 1, self.count)) from None
        except ConnectionError as error:
            raise RuntimeError(f"connection closed by another process: {error}") from error


def silent(number: int, count: int) -> str:
    """The message about process `number` of `count` processes that does not answer."""
    return (
        f"process {number} of {count} has not answered for {PATIENCE} s: it is stopped, or the machine is overloaded "
        "(processes=1 needs less); --resume auto goes on from the last checkpoint"
    )


def open_memory(count: int) -> int:
    """A file in memory for the exchanges of `count` processes, which all inherit it; the caller closes it."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("prior-fast")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.truncate(file, count * 2 * PART)
    return file


def _add(total: Tensor, parts: list[Tensor]) -> None:
    total.copy_(parts[0])
    for part in parts[1:]:
        total.add_(part)


def _bytes(x: Tensor) -> memoryview:
    numbers: Any = x.numpy()
    return memoryview(numbers).cast("B")


def _read(source: socket.socket, into: memoryview) -> None:
    while into:
        count = source.recv_into(into)
        if not count:
            raise ConnectionResetError("it has ended")
        into = into[count:]
