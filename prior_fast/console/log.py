"""Progress as lines of a log, where standard error is no terminal: a file of a cluster, or a pipe."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from rich.console import Console
from rich.progress import Task, TaskID

from prior_fast.console.bar import Bar, running

# Seconds from one line to the next: a run of minutes shows that it works, a run of days fills no disk.
GAPS = (10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
# Seconds between two looks at the clock while nothing advances.
BEAT = 1.0
_CENTURY = 3e9  # seconds; a longer rest is no estimate


@dataclass
class Row:
    """A task, and what was written about it.

    Attributes:
        began: the time of its begin, in seconds of the bar's clock.
        given: what was done at its begin.
        first: time and state when it first advanced; compilation and loading before that tell nothing of its speed.
        ended: the time of its end.
        lines: the number of lines about it.
        last: the time of its last line; of its begin or its end, if there is none since.
    """

    task: Task
    began: float
    given: float
    last: float
    first: tuple[float, float] | None = None
    ended: float | None = None
    lines: int = 0

    def left(self, now: float) -> float | None:
        """The seconds that the rest takes at the speed so far; None if nothing tells."""
        done, (since, before) = self.task.completed, self.first or (self.began, self.given)
        if done <= before:
            since, before = self.began, self.given
        if self.task.total is None or done <= before:
            return None
        seconds = max(0.0, (self.task.total - done) * (now - since) / (done - before))
        return seconds if seconds < _CENTURY else None


class LogBar(Bar):
    """Progress that writes a line of the current task now and then, and at the end of each task that it has shown.

    A thread writes while nothing advances. It never waits for rich's lock, does not keep the process alive, and writes
    nothing after `stop`. A forked process writes nothing. A log that can't be written ends no work.
    """

    def __init__(self, console: Console, fields: Sequence[str] = (), clock: Callable[[], float] = time.monotonic):
        super().__init__(console=console, fields=fields, disable=True, get_time=clock)
        self._clock = clock
        self._rows: list[Row] = []  # the one that advanced last is last
        self._written, self._last = 0, clock()
        self._turn = threading.Lock()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to write."""
        super().start()
        self._written, self._last = 0, self._clock()
        # Each start has its own event: a thread that is about to end can't take a new one for its own.
        self._stopped = threading.Event()
        threading.Thread(target=self._beat, args=(self._stopped,), name="progress", daemon=True).start()

    def stop(self) -> None:
        """Write the last line of each task that was shown and has not ended; nothing after it."""
        if self.mine():
            with self._turn:
                if not self._stopped.is_set():
                    now = self._clock()
                    for row in [row for row in self._rows if row.lines and row.ended is None]:
                        self._write(row, now, described(row, now, ended=True))
                    self._stopped.set()
        super().stop()

    def add_task(
        self,
        description: str,
        start: bool = True,
        total: float | None = 100.0,
        completed: int = 0,
        visible: bool = True,
        **fields: Any,
    ) -> TaskID:
        """As `Progress.add_task`."""
        number = super().add_task(description, start, total, completed, visible, **fields)
        if self.mine():
            now = self._clock()
            task = next(task for task in self.tasks if task.id == number)
            with self._turn:
                self._rows.append(Row(task, now, task.completed, now))
        return number

    def remove_task(self, task_id: TaskID) -> None:
        """As `Progress.remove_task`; a task that was shown gets a last line."""
        row = self._row(task_id) if self.mine() else None
        super().remove_task(task_id)
        if row is not None:
            with self._turn:
                self._rows.remove(row)
                if row.lines and row.ended is None and not self._stopped.is_set():
                    now = self._clock()
                    self._write(row, now, described(row, now, ended=True))

    def update(
        self,
        task_id: TaskID,
        *,
        total: float | None = None,
        completed: float | None = None,
        advance: float | None = None,
        description: str | None = None,
        visible: bool | None = None,
        refresh: bool = False,
        **fields: Any,
    ) -> None:
        """As `Progress.update`."""
        changes: dict[str, Any] = {"total": total, "completed": completed, "advance": advance}
        super().update(task_id, description=description, visible=visible, refresh=refresh, **changes, **fields)
        self._moved(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As `Progress.advance`."""
        super().advance(task_id, advance)
        self._moved(task_id)

    def tick(self) -> None:
        """Write a line about the current task if one is due."""
        # A bar in a bar, such as that of a check, speaks alone while it lasts.
        if not self.mine() or running() is not self:
            return
        with self._turn:
            if self._stopped.is_set() or not self._rows:
                return
            now = self._clock()
            row = next((row for row in reversed(self._rows) if row.ended is None), self._rows[-1])
            silent = now - self._last
            if silent >= GAPS[0] and (now - row.last >= _gap(row.lines) or silent >= _gap(self._written)):
                self._write(row, now, described(row, now))

    def _beat(self, stopped: threading.Event) -> None:
        while not stopped.wait(BEAT):
            self.tick()

    def _row(self, number: TaskID) -> Row | None:
        return next((row for row in self._rows if row.task.id == number), None)

    def _moved(self, number: TaskID) -> None:
        """Take note of a task that advanced or was described anew."""
        if not self.mine() or (row := self._row(number)) is None:
            return
        with self._turn:
            now, done = self._clock(), row.task.completed
            if row is not self._rows[-1]:
                self._rows.remove(row)
                self._rows.append(row)
            if done < row.given or (row.first and done < row.first[1]):  # the same row shows other work from here on
                row.began, row.given, row.first, row.ended = now, done, None, None
            elif row.first is None and done > row.given:
                row.first = now, done
            if row.task.finished and row.ended is None:
                if row.lines and not self._stopped.is_set():
                    self._write(row, now, described(row, now, ended=True))
                row.ended = row.last = now
                row.lines = 0
        self.tick()

    def _write(self, row: Row, now: float, line: str) -> None:
        row.last = self._last = now
        row.lines += 1
        self._written += 1
        write_line(self.console.file, line)


def described(row: Row, now: float, ended: bool = False) -> str:
    """A line about a task at the time `now`; ended: it is the last one."""
    task = row.task
    name = " ".join(task.description.split())
    if row.ended is not None:
        return f"after {name or 'the last task'}, {duration(now - row.ended)}"
    parts = []
    if task.total is not None and task.total > 1:
        parts.append(f"{task.completed:.0f}/{task.total:.0f}")
    elif task.total is None and task.completed:
        parts.append(f"{task.completed:.0f}")
    if task.total:
        parts.append(f"{int(100 * task.completed / task.total)} %")
    counted = bool(parts)
    parts.append(duration(now - row.began))
    left = None if ended else row.left(now)
    if left is not None:
        parts.append(f"{duration(left)} left")
    if ended and not counted:
        parts.append("done")
    parts += [words for value in task.fields.values() if (words := " ".join(str(value).split()))]
    return f"{name}{': ' if name and counted else ', ' if name else ''}{', '.join(parts)}"


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def write_line(file: IO[str], line: str) -> None:
    """Write a line in ASCII, without control characters, past the buffers of `file`; an error is ignored.

    It is one write: lines of several processes do not mix, and a broken pipe leaves nothing in a buffer, which Python
    would report at its end.
    """
    text = "".join(each if " " <= each <= "~" else "?" for each in line) + "\n"
    with suppress(OSError, ValueError):
        try:
            number = file.fileno()
        except (OSError, ValueError, AttributeError):  # a file in memory
            file.write(text)
            file.flush()
            return
        file.flush()
        os.write(number, text.encode("ascii"))


def _gap(lines: int) -> float:
    return GAPS[min(lines, len(GAPS) - 1)]
