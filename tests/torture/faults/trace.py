"""Reading the record of operations that faults.c writes."""

import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_HEAD = struct.Struct("<IIQQqIIHH")


class Kind(IntEnum):
    """The kinds of operations, as in faults.c."""

    CREATE = 1
    TRUNCATE = 2
    WRITE = 3
    RENAME = 4
    UNLINK = 5
    RMDIR = 6
    MKDIR = 7
    FSYNC = 8
    LINK = 9
    SYMLINK = 10
    CLOSE = 11
    OPEN = 12  # for writing, of a file that exists and keeps its content
    CONTENT = 13  # what a mapped file holds
    ALLOCATE = 14
    EXCHANGE = 15
    SYNC = 16  # of everything


@dataclass(frozen=True)
class Operation:
    """One operation that succeeded.

    Attributes:
        inode: of the file or folder after it; 0 if that is gone.
        offset: of a write; the new size for TRUNCATE and ALLOCATE.
        durable: the file's data are safe after it.
        path: where it was done.
        other: the new name of RENAME, LINK and EXCHANGE, the text of SYMLINK.
        data: what WRITE and CONTENT wrote.
    """

    kind: Kind
    number: int
    inode: int
    process: int
    offset: int
    durable: bool
    path: str
    other: str
    data: bytes

    def __str__(self) -> str:
        more = f" -> {self.other}" if self.other else f" {len(self.data)} bytes at {self.offset}" if self.data else ""
        return f"{self.number} {self.kind.name.lower()} {self.path}{more}"


def read_trace(path: Path) -> list[Operation]:
    """The operations in the order of their numbers."""
    text = path.read_bytes() if path.exists() else b""
    found, place = [], 0
    while place < len(text):
        size, kind, number, inode, offset, process, durable, first, second = _HEAD.unpack_from(text, place)
        begin = place + _HEAD.size
        middle, end = begin + first, begin + first + second
        names = os.fsdecode(text[begin:middle]), os.fsdecode(text[middle:end])
        data = text[end : place + size]
        found.append(Operation(Kind(kind), number, inode, process, offset, bool(durable), *names, data))
        place += size
    return sorted(found, key=lambda one: one.number)
