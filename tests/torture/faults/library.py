"""Compiles faults.c, and the file by which a test tells the library what to do."""

import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from prior_fast.csrc.build import find_cxx

SOURCE = Path(__file__).with_name("faults.c")
VARIABLE = "TORTURE_CONTROL"
_SIZE, _NAME = 8192, 2048
_COUNT, _BYTES, _NUMBER, _MODE, _FIRED, _TRACING, _ROOT, _LOG = 0, 8, 16, 24, 28, 32, 56, 56 + _NAME


class Mode(IntEnum):
    """What happens at the operation `number`."""

    NONE = 0
    KILL = 1  # SIGKILL for the process group, before the operation
    TORN = 2  # SIGKILL in the middle of the operation, if it is a write
    FULL_ONCE = 3  # ENOSPC
    FULL = 4  # ENOSPC, and at all later ones
    FULL_SHORT = 5  # half of a write is done; ENOSPC at all later ones
    BUDGET = 6  # ENOSPC when `number` bytes have been written
    IO_ERROR = 7  # EIO
    PAUSE = 8  # SIGSTOP for the process group, before the operation


# The modes after which a command ends, or goes on, by itself.
FAULTS = tuple(mode for mode in Mode if mode not in (Mode.NONE, Mode.PAUSE))


@dataclass(frozen=True)
class Fault:
    """A mode and the number of the operation (for BUDGET the number of bytes)."""

    mode: Mode = Mode.NONE
    number: int = 0

    def __str__(self) -> str:
        return f"{self.mode.name.lower()} at {self.number}" if self.mode else "no fault"


def compiler() -> list[str] | None:
    """The compiler's words, or None where the library can't be used."""
    return find_cxx() if sys.platform == "linux" else None


def build(folder: Path) -> Path:
    """Compile the library into `folder`; an up-to-date one is kept."""
    path, words = folder / "faults.so", compiler()
    assert words is not None
    if not path.exists() or path.stat().st_mtime < SOURCE.stat().st_mtime:
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        flags = ["-x", "c", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-fPIC", "-shared", "-pthread"]
        subprocess.run([*words, *flags, str(SOURCE), "-o", str(partial), "-ldl"], check=True)
        partial.replace(path)
    return path


class Control:
    """The memory that all processes of a command share with the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SIZE)

    @property
    def count(self) -> int:
        """The number of operations so far."""
        return struct.unpack_from("<Q", self._memory, _COUNT)[0]

    @property
    def bytes(self) -> int:
        """The number of bytes written so far."""
        return struct.unpack_from("<Q", self._memory, _BYTES)[0]

    @property
    def fired(self) -> bool:
        """Whether the fault has happened."""
        return bool(struct.unpack_from("<I", self._memory, _FIRED)[0])

    def close(self) -> None:
        self._memory.close()


@contextmanager
def control(path: Path, root: Path, fault: Fault = Fault(), log: Path | None = None) -> Iterator[Control]:
    """Make the control file of one run of a command, and remove it at the end.

    Args:
        root: only operations under this folder count.
        log: record the operations here.
    """
    words = bytearray(_SIZE)
    struct.pack_into("<Q", words, _NUMBER, fault.number)
    struct.pack_into("<III", words, _MODE, fault.mode, 0, log is not None)
    for place, name in ((_ROOT, os.fsencode(root.resolve())), (_LOG, os.fsencode(log) if log else b"")):
        assert len(name) < _NAME
        words[place : place + len(name)] = name
    path.write_bytes(words)
    made = Control(path)
    try:
        yield made
    finally:
        made.close()
        path.unlink()
