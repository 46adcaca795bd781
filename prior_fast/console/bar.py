"""What bars in a terminal and lines in a log share: the bar that is running, and its fields."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID

_running: list["Bar"] = []


class Bar(Progress):
    """rich's progress bar. While it runs, `running` returns it.

    fields: names of task fields; a task that is added without one has it empty.
    """

    def __init__(
        self,
        *columns: ProgressColumn,
        console: Console,
        fields: Sequence[str] = (),
        disable: bool = False,
        get_time: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(*columns, console=console, disable=disable, get_time=get_time)
        self._fields = tuple(fields)
        self._process = os.getpid()

    def start(self) -> None:
        """Begin to show progress."""
        super().start()
        _running.append(self)

    def stop(self) -> None:
        """Show no more progress."""
        if self in _running:
            _running.remove(self)
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
        """As `Progress.add_task`; a field that is not given is empty."""
        fields = {**dict.fromkeys(self._fields, ""), **fields}
        return super().add_task(description, start, total, completed, visible, **fields)

    def mine(self) -> bool:
        """Whether this process made the bar; a forked one must neither show it nor wait for its locks."""
        return self._process == os.getpid()


def running() -> Bar | None:
    """The innermost bar that this process shows."""
    return next((bar for bar in reversed(_running) if bar.mine()), None)
