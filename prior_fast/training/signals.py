"""Stop signals: SIGTERM, SIGUSR1 and Ctrl-C end a run after the current step, with a checkpoint.

A second Ctrl-C ends it at once, except inside `uninterrupted` blocks.
"""

import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed
from torch.distributed import ProcessGroup

# EX_TEMPFAIL of sysexits.h: "the user is invited to retry".
EXIT_CODE = 75
# What a shell reports of a command that Ctrl-C ended.
INTERRUPT_CODE = 130
# The signals of schedulers.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# Compilers run in threads and processes that an exception in this thread may have to wait for.
_PATIENCE = 10.0  # seconds


class StopNow(BaseException):
    """Raised by a stop signal where nothing would be lost (`StopSignals.at_once`)."""


class StopSignals:
    """A context in which SIGTERM, SIGUSR1 and the first Ctrl-C do not end the process but are recorded.

    Processes started in it (a loader's) do not receive the schedulers' signals: the current step may still need their
    batches.

    Args:
        group: all its ranks stop at the same step, whichever of them got a signal.
        speaks: answer the first Ctrl-C on standard error.
    """

    def __init__(self, group: ProcessGroup | None = None, speaks: bool = True) -> None:
        # A gloo group: the ranks agree without waiting for a GPU.
        self.group: ProcessGroup | None = None
        if group is not None:
            self.group = torch.distributed.new_group(backend="gloo")  # type: ignore[assignment]
        self.speaks = speaks
        self.received: signal.Signals | None = None
        self.agreed = False
        self._handlers: dict[signal.Signals, Any] = {}
        self._now = False
        self._over = False
        self._left = threading.Event()

    def __enter__(self) -> "StopSignals":
        # Python lets only the main thread set handlers. A run in another thread is stopped by its caller.
        if threading.current_thread() is threading.main_thread():
            # A process that ignores Ctrl-C (one in the background, or one that another process ends) goes on to do so.
            heeds = callable(signal.getsignal(signal.SIGINT))
            numbers = (*SIGNALS, signal.SIGINT) if heeds else SIGNALS
            self._handlers = {number: signal.signal(number, self._note) for number in numbers}
            # Child processes inherit the mask through fork and exec. Another thread of this process then handles the
            # signal, or it stays pending.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if not self._handlers:
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        # Schedulers and launchers send several signals: a later one must not change the exit code.
        for number, handler in self._handlers.items():
            if number == signal.SIGINT or not self.agreed:
                signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether any rank got a stop signal; every rank must call this after the same steps."""
        return self.agree(False)[0]

    def agree(self, due: bool) -> tuple[bool, bool]:
        """Whether any rank got a stop signal, and whether `due` holds on any rank.

        Every rank must call this after the same steps.
        """
        self._read_pending()
        self.agreed = self.received is not None
        if self.group is not None:
            flags = torch.tensor([int(self.agreed), int(due)])
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=self.group)
            self.agreed, due = map(bool, flags.tolist())
        return self.agreed, due

    def over(self) -> None:
        """Ignore further Ctrl-C until the end of this context: the run has stopped, and ends its threads.

        Python would print an exception in the end of a generator and go on.
        """
        self._over = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block in which nothing is lost by stopping at once, such as the compilation before the first step.

        A stop signal raises `StopNow` in it. If the block does not end within seconds, the process ends.

        Raises:
            StopNow: a stop signal came, also one that came before and was not acted on.
        """
        if not self._handlers:
            yield
            return
        self._read_pending()
        if self.received is not None:
            self.agreed = True
            raise StopNow
        self._now = True
        with self._watched():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            try:
                yield
            finally:
                self._now = False
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    @property
    def cause(self) -> str:
        """The cause, for the user: the signal's name, or that another process got one."""
        if self.received == signal.SIGINT:
            return "Ctrl-C"
        return self.received.name if self.received else "a signal to another process"

    @property
    def exit_code(self) -> int:
        """The exit code of a run that a signal stopped."""
        return INTERRUPT_CODE if self.received == signal.SIGINT else EXIT_CODE

    def _read_pending(self) -> None:
        pending = signal.sigpending() & set(SIGNALS) if self._handlers else set()
        if pending and self.received is None:
            self.received = signal.Signals(min(pending))

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.received == signal.SIGINT == number
        self.received = self.received or signal.Signals(number)
        if self._now:
            self._now = False
            self.agreed = True
            # torch would print where an interrupted backward pass was compiled.
            warnings.filterwarnings("ignore", "Error detected in", UserWarning)
            raise StopNow
        if number == signal.SIGINT and not self._over:
            if again:
                self._handlers[signal.SIGINT](number, frame)
            elif self.speaks:
                # Not by print: this handler may have interrupted a print.
                os.write(2, b"\nprior-fast: stopping after this step; press Ctrl-C again to stop at once\n")

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """A block in which a thread ends the process if a stop signal does not end the run within seconds.

        Python runs a handler only between two instructions of the main thread, which may be inside a compiler for
        minutes. The number of a signal is written to a socket at once.
        """
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            writer.close()

    def _watch(self, reader: socket.socket) -> None:
        with reader:
            while number := reader.recv(1):
                if number[0] in self._handlers and not self._left.wait(_PATIENCE):
                    os._exit(INTERRUPT_CODE if number[0] == signal.SIGINT else EXIT_CODE)


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
    if callable(before):
        for _ in noted:
            before(signal.SIGINT, None)
