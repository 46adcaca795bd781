"""Being asked to stop: a scheduler's SIGTERM or SIGUSR1 ends a run after the step under way, with a checkpoint.

Ctrl-C ends it at once, but for a few lines that have to be whole.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed
from torch.distributed import ProcessGroup

# EX_TEMPFAIL of sysexits.h: "the user is invited to retry".
EXIT_CODE = 75
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """While entered, SIGTERM and SIGUSR1 do not end the process but are noted.

    Processes started meanwhile (a loader's) never see them: the step under way may still want their batches.

    group: all its ranks stop at the same step, whichever of them got a signal.
    """

    def __init__(self, group: ProcessGroup | None = None) -> None:
        # On a group of CPUs the ranks agree without waiting for a GPU.
        self.group: ProcessGroup | None = None
        if group is not None:
            self.group = torch.distributed.new_group(backend="gloo")  # type: ignore[assignment]
        self.received: signal.Signals | None = None
        self.agreed = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        # Python lets no other thread set handlers; a run in another thread is stopped by whoever started it.
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
            # The mask is what a child inherits through fork and exec alike. A signal to the process is then taken by
            # another thread, or stays pending.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._handlers:
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        # Schedulers and launchers send more than one: another on the way out is not to change the exit code.
        if not self.agreed:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether a rank has been asked to stop; every rank has to call this after the same steps."""
        pending = signal.sigpending() & set(SIGNALS) if self._handlers else set()
        if pending:
            self.received = signal.Signals(min(pending))
        self.agreed = self.received is not None
        if self.group is not None:
            flag = torch.tensor([int(self.agreed)])
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group=self.group)
            self.agreed = bool(flag)
        return self.agreed

    @property
    def cause(self) -> str:
        """What to tell the user: the signal's name, or that another process got one."""
        return self.received.name if self.received else "a signal to another process"

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that Ctrl-C does not cut short: KeyboardInterrupt comes after it.

    A mask of the thread would not do: another thread takes the signal, and Python raises in this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # interrupts are raised in the main thread alone
        return
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if noted and callable(before):
        before(signal.SIGINT, None)
