"""A lock that names its owner and ends with it."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prior_fast.errors import RunError
from prior_fast.files.space import explained

# File systems without locks, such as some mounts of Lustre and NFS: two processes at once are not noticed there.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def lock(path: Path, what: str, shared: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, which is made and removed here.

    The operating system releases the lock when this process ends, however it ends. A file that a killed process left
    is no lock: the next process takes it.

    Args:
        what: what is locked, for the message.
        shared: other processes may hold it too, if they also ask for a shared lock. The last one removes the file.

    Raises:
        RunError: another process holds it; the message names the process and its host.
    """
    with explained(path):
        descriptor = _open_locked(path, what, shared)
    try:
        with explained(path):
            os.ftruncate(descriptor, 0)  # a killed process may have left its name
            if not shared:
                owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
                os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield
    finally:
        with suppress(OSError):
            # A shared holder removes the file only if no other one is left.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        os.close(descriptor)


def _open_locked(path: Path, what: str, shared: bool) -> int:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise RunError(
                f"{what} is in use by {owner}: wait for its end, or give another folder (lock: {path})"
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
        # The last holder may have removed the file between `open` and `flock`.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def _owner(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return _owner_by_system(os.fstat(descriptor).st_ino) or "another process"


def _owner_by_system(inode: int) -> str:
    """The process that Linux lists as the one that holds a file; "" if it lists none, as for one on another host."""
    with suppress(OSError):
        # 1: FLOCK  ADVISORY  WRITE 4711 fd:01:123456 0 EOF
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if (
                "->" not in words
                and words[1] == "FLOCK"
                and words[5].split(":")[-1] == str(inode)
                and int(words[4]) > 0
            ):
                return f"process {words[4]} on this machine"
    return ""
