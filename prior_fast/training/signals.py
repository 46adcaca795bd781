"""Stop signals: a scheduler's SIGTERM or SIGUSR1 ends a run after the current step, with a checkpoint.

Ctrl-C ends a run at once, except inside `uninterrupted` blocks.
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
    """A context in which SIGTERM and SIGUSR1 do not end the process but are recorded.

    Processes started in it (a loader's) do not receive them: the current step may still need their batches.

    group: all its ranks stop at the same step, whichever of them got a signal.
    """

    def __init__(self, group: ProcessGroup | None = None) -> None:
        # A gloo group: the ranks agree without waiting for a GPU.
        self.group: ProcessGroup | None = None
        if group is not None:
            self.group = torch.distributed.new_group(backend="gloo")  # type: ignore[assignment]
        self.received: signal.Signals | None = None
        self.agreed = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        # Python lets only the main thread set handlers. A run in another thread is stopped by its caller.
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
            # Child processes inherit the mask through fork and exec. Another thread of this process then handles the
            # signal, or it stays pending.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._handlers:
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        # Schedulers and launchers send several signals: a later one must not change the exit code.
        if not self.agreed:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether any rank got a stop signal; every rank must call this after the same steps."""
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
        """The cause, for the user: the signal's name, or that another process got one."""
        return self.received.name if self.received else "a signal to another process"

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A context that Ctrl-C does not interrupt: KeyboardInterrupt is raised at its end.

    Masking the signal in this thread is not enough: another thread receives it, and Python raises in this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # interrupts are raised only in the main thread
        return
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if noted and callable(before):
        before(signal.SIGINT, None)
