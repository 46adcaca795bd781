"""Damaging files bit by bit, at places that depend only on the file's name."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def flipped(path: Path, position: int, bit: int) -> Iterator[None]:
    """A file in which one bit is flipped, until the block ends."""
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[position] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        yield
    finally:
        path.write_bytes(content)


def places(path: Path, count: int, first: int | None = None) -> list[tuple[int, int]]:
    """`count` positions in a file, or in its first bytes, each with a bit."""
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    size = path.stat().st_size if first is None else min(first, path.stat().st_size)
    return [(int(rng.integers(size)), int(rng.integers(8))) for _ in range(count)] if size else []
