"""What Ctrl-C does: the first one interrupts the command, and a user who presses on is not shown a traceback."""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

_AT_ONCE = 3  # presses


def end_by_interrupts() -> None:
    """Handle Ctrl-C in this process: raise KeyboardInterrupt at the first, answer the second, end at the third.

    A second KeyboardInterrupt would interrupt the removal of unfinished files, or Python's own end.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    # A program that runs in the background ignores Ctrl-C, which is meant for another one.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _Presses())


def end_at_interrupt(code: int) -> None:
    """From now on Ctrl-C ends this process at once with `code`: the command is over, and only Python's end is left.

    A traceback of what Python was ending would be the last that the user sees.
    """
    if isinstance(signal.getsignal(signal.SIGINT), _Presses):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # closed, or nobody reads it
                stream.flush()
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(code))


class _Presses:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            raise KeyboardInterrupt
        if self.count >= _AT_ONCE:
            os._exit(130)
        # Not by print: this handler may have interrupted a print.
        os.write(2, b"\nprior-fast: stopping; press Ctrl-C again to end at once\n")
