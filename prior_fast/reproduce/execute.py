"""Runs the steps of a plan one after another, each in its own process, and goes on where an earlier run stopped."""

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from prior_fast.console import busy, stdout
from prior_fast.errors import UsageError
from prior_fast.files import write_json
from prior_fast.reproduce.steps import Step
from prior_fast.training.signals import EXIT_CODE, SIGNALS

PLAN, LOCK = "plan.json", ".lock"


@dataclass
class Outcome:
    """What became of the steps.

    Attributes:
        failed: the exit codes of the steps that failed.
        left_out: the steps that need the result of a failed one.
        stopped: a stop signal ended the run before its end.
    """

    failed: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    stopped: bool = False


def check_plan(out: Path, steps: Mapping[str, Step]) -> None:
    """Refuse steps that differ from those with which the folder `out` was begun, and record the new ones.

    Raises:
        UsageError: a step of the same name has another command, or the record can't be read.
    """
    path = out / PLAN
    saved: dict[str, list[str]] = {}
    if path.is_file():
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))["steps"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} can't be read ({error!r}): name another --out") from None
    for name, step in steps.items():
        before = saved.get(name, list(step.words))
        if before != list(step.words):
            old, new = set(before) - set(step.words), set(step.words) - set(before)
            raise UsageError(
                f"{out}: its step {name} was made with {' '.join(sorted(old)) or 'fewer words'}, not with "
                f"{' '.join(sorted(new)) or 'fewer words'}: name another --out, or give the same to go on"
            )
    write_json(path, {"steps": {**saved, **{name: list(step.words) for name, step in steps.items()}}})


@contextmanager
def only_one(out: Path) -> Iterator[int]:
    """A context that no two processes are in for one folder: a later one waits. Yields the lock's file descriptor.

    Steps inherit the lock. If this process is killed, a step that is still running keeps it until it ends.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = os.open(out / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stdout.print(f"waiting for a command that still works in {out}")
            with busy(f"waiting for a command that still works in {out}"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def execute(steps: Iterable[Step], lock: int | None = None) -> Outcome:
    """Run the unfinished steps. After a failure, the steps that do not need the failed one still run.

    lock: a file descriptor that the steps inherit.

    Raises:
        KeyboardInterrupt: Ctrl-C; the step in progress has ended.
    """
    outcome, steps = Outcome(), list(steps)
    for number, step in enumerate(steps, start=1):
        if step.finished():
            stdout.print(f"[{number}/{len(steps)}] {step.name}: finished before")
            continue
        if {*outcome.failed, *outcome.left_out} & set(step.needs):
            outcome.left_out.append(step.name)
            stdout.print(f"[{number}/{len(steps)}] {step.name}: left out, since a step that it needs failed")
            continue
        stdout.print(f"[{number}/{len(steps)}] {step.name}: {step.shown()}")
        code = _run(step, lock)
        if code == EXIT_CODE:
            outcome.stopped = True
            return outcome
        if code or not step.finished():
            outcome.failed[step.name] = code
            what = f"exit code {code}" if code else f"it left no finished {step.out / step.proof}"
            stdout.print(f"[{number}/{len(steps)}] {step.name}: failed, {what}")
    return outcome


def _run(step: Step, lock: int | None) -> int:
    """The exit code of the step's command. Stop signals are passed on to it."""
    process = subprocess.Popen(step.argv(), pass_fds=[] if lock is None else [lock])
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # Ctrl-C reached the step too
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code in (130, -signal.SIGINT):
        raise KeyboardInterrupt
    # A command that does not handle stop signals ends by them.
    return EXIT_CODE if received and code else code
