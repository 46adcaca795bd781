"""Free space on a disk: asked before work where the need is known, and named when it runs out."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prior_fast.errors import RunError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Name `path` in an error of the system that happens while it is written.

    Raises:
        RunError: the disk is full, or the user's share of it.
        OSError: any other error of the system; one without a filename gets `path`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunError(
                f"no space is left for {path} ({shown_bytes(free_bytes(path))} free): free some, then start the same "
                "command again"
            ) from error
        if error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def system_error(error: Exception, path: Path) -> OSError | None:
    """The error of the system that a library written in Rust reports only by words, such as a full disk; else None.

    path: the file or folder that was written.
    """
    found = re.search(r"os error (\d+)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1])), str(path)) if found else None


def need_space(path: Path, needed: int, what: str) -> None:
    """Refuse to begin if the disk of `path` has not the space.

    Args:
        needed: bytes.
        what: what needs them, the beginning of the message.

    Raises:
        RunError: too few bytes are free.
    """
    free = free_bytes(path)
    if free < needed:
        raise RunError(f"{what} needs {shown_bytes(needed)} in {path}, where {shown_bytes(free)} are free: free some")


def free_bytes(path: Path) -> int:
    """The bytes that this user may still write at `path`, which need not exist yet."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def shown_bytes(count: int) -> str:
    """A number of bytes for people, in powers of 1000."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
