"""SIGTERM, by which schedulers stop a job: the command ends as by Ctrl-C, and its exit code says that it can go on."""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from prior_fast.errors import Interrupted, RunError

# That of a stopped training run: EX_TEMPFAIL of sysexits.h.
EXIT_CODE = 75


def until_stopped(work: Callable[[], None]) -> int:
    """Do the work.

    Returns:
        0, or 75 if SIGTERM ended it.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        # A second signal must not interrupt the removal of unfinished files.
        signal.signal(number, signal.SIG_IGN)
        received.append(number)
        raise KeyboardInterrupt

    # Python lets only the main thread set handlers.
    handles = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if handles else None
    try:
        work()
    except (Interrupted, KeyboardInterrupt, RunError) as error:
        # A scheduler also stops the worker processes, whose end may be noticed first.
        if not received:
            raise
        print(f"prior-fast: {error if isinstance(error, Interrupted) else 'stopped by SIGTERM'}", file=sys.stderr)
        return EXIT_CODE
    finally:
        if handles:
            signal.signal(signal.SIGTERM, before)
    return 0
