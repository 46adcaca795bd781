"""`prior-fast` in separate processes, forked from one that has imported everything: imports in a new process take
seconds.

Each process leads a session, like a process that a shell starts. Its output is kept in files.
"""

import ctypes
import hashlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

from prior_fast.cli.main import main
from prior_fast.model import exchange
from prior_fast.training import signals
from prior_fast.training.run import Run
from prior_fast.training.signals import StopSignals
from prior_fast.training.step import StageTrainer

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "prior_fast.training.pretrain", "prior_fast.data.loader"])

Main = Callable[[Sequence[str]], int]


class Forked:
    """A process that runs a command.

    main: the function that takes the command line's words.
    said: the folder for the output.
    """

    def __init__(self, words: Sequence[str], said: Path, main: Main = main, **environment: str) -> None:
        self.said = said
        self._process = CONTEXT.Process(target=_run, args=(list(words), said, main, environment))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def stdout(self) -> str:
        return (self.said / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.said / "stderr").read_text()

    def running(self) -> bool:
        return self._process.is_alive()

    def wait(self) -> int:
        """The exit code; minus the number of the signal that ended it, if one did."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def end(self) -> None:
        """End it and what it has started; nothing where it has ended."""
        if self.running():
            os.killpg(os.getpgid(self.pid), signal.SIGKILL)
            self._process.join()


def wait_for_all(processes: Sequence[Forked], code: int = 0) -> None:
    """Fail as soon as one process ends with another exit code, since others may wait for it forever."""
    left = {process._process.sentinel: process for process in processes}
    while left:
        for sentinel in connection.wait(list(left)):
            process = left.pop(sentinel)  # type: ignore[call-overload]
            assert process.wait() == code, process.stderr[-3000:]


def _run(words: list[str], said: Path, main: Main, environment: dict[str, str]) -> None:
    os.setsid()
    # Handle Ctrl-C as in a terminal; a background program of a shell inherits that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As in a process that a shell starts: its own child processes are not forked from the fork server.
    multiprocessing.set_start_method(None, force=True)  # type: ignore[arg-type]
    os.environ.update(environment)
    torch.set_num_threads(1)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.exit(main(words))


def main_until_stopped(words: Sequence[str]) -> int:
    """`prior-fast train` that waits before its fourth step until a signal asks it to stop."""
    agree, calls = StopSignals.agree, 0

    def patient(signals: StopSignals, due: bool) -> tuple[bool, bool]:
        nonlocal calls
        calls += 1
        while not (found := agree(signals, due))[0] and calls >= 3:
            time.sleep(0.01)
        return found

    StopSignals.agree = patient  # type: ignore[method-assign]
    return main(words)


def main_of_little_patience(words: Sequence[str]) -> int:
    """`prior-fast train` that gives up another process after a second without an answer."""
    exchange.PATIENCE = 1
    return main(words)


def main_stuck(words: Sequence[str]) -> int:
    """`prior-fast train` whose first step takes for ever; it writes the file `stuck` into --out when it begins."""
    return _stuck(words, lambda: time.sleep(1000))


def main_stuck_later(words: Sequence[str]) -> int:
    """`main_stuck`, in the second step, when there is something to lose."""
    return _stuck(words, lambda: time.sleep(1000), first=2)


def main_stuck_in_code(words: Sequence[str]) -> int:
    """`main_stuck`, in code that runs no signal handlers; the run's patience is short."""
    signals._PATIENCE = 0.2
    return _stuck(words, _never_in_python)


def _never_in_python() -> None:
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)  # all zeros: a normal mutex
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)  # waits for ever, and a signal does not end it


def _stuck(words: Sequence[str], wait: Callable[[], None], first: int = 1) -> int:
    out, take, calls = Path(words[words.index("--out") + 1]), StageTrainer.step, 0

    def step(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < first:
            return take(*arguments)
        (out / "stuck").touch()
        return wait()

    StageTrainer.step = step  # type: ignore[method-assign]
    return main(words)


def main_with_statistics(words: Sequence[str]) -> int:
    """`prior-fast train` that prints a digest of the running statistics of all normalizations at its end."""
    close = Run.close

    def telling(run: Run) -> None:
        digest = hashlib.sha256()
        for name, buffer in run.model.named_buffers():
            if "running" in name:
                digest.update(name.encode() + buffer.numpy().tobytes())
        print("statistics", digest.hexdigest(), flush=True)
        close(run)

    Run.close = telling  # type: ignore[method-assign]
    return main(words)


class Group:
    """The store at which the ranks of a group meet, as with torchrun; no port is guessed, which might be in use."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def environment(self, rank: int) -> dict[str, str]:
        return {
            **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.count)},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port)},
            **{"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"},
        }
