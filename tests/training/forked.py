"""`prior-fast` in processes of their own, forked from one that has the imports done: they take a new Python seconds.

A process leads a session, as one that a shell starts does. What it says is kept in files.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from pathlib import Path

import torch
from torch.distributed import TCPStore

from prior_fast.cli.main import main
from prior_fast.training.signals import StopSignals

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "prior_fast.training.pretrain", "prior_fast.data.loader"])

Main = Callable[[Sequence[str]], int]


class Forked:
    """A process that runs a command.

    main: what takes the words.
    said: the folder for what it says.
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
    """Fail as soon as one ends with another exit code: others may wait for it for ever."""
    left = {process._process.sentinel: process for process in processes}
    while left:
        for sentinel in connection.wait(list(left)):
            process = left.pop(sentinel)  # type: ignore[call-overload]
            assert process.wait() == code, process.stderr[-3000:]


def _run(words: list[str], said: Path, main: Main, environment: dict[str, str]) -> None:
    os.setsid()
    # As a terminal's; a program in the background of a shell inherits that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As in a process that a shell starts: what it starts itself is not forked from the server that it came from.
    multiprocessing.set_start_method(None, force=True)  # type: ignore[arg-type]
    os.environ.update(environment)
    torch.set_num_threads(1)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.exit(main(words))


def main_until_stopped(words: Sequence[str]) -> int:
    """`prior-fast train` that takes no fourth step before a signal asks it to stop, however late that comes."""
    asked, calls = StopSignals.asked, 0

    def patient(signals: StopSignals) -> bool:
        nonlocal calls
        calls += 1
        while not (found := asked(signals)) and calls >= 3:
            time.sleep(0.01)
        return found

    StopSignals.asked = patient  # type: ignore[method-assign]
    return main(words)


class Group:
    """What the ranks of one group meet at, as torchrun has it: no port is guessed that another program may take."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def environment(self, rank: int) -> dict[str, str]:
        return {
            **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.count)},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port)},
            **{"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"},
        }
