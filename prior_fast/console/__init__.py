"""The output of the commands: progress on standard error and short tables on standard output."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from prior_fast.console.bar import Bar, running
from prior_fast.console.log import LogBar


class _ErrorConsole(Console):
    """Standard error. Nobody reads it any more if its pipe is broken, which is no reason to end the work."""

    def on_broken_pipe(self) -> None:
        """Write nothing from now on, also not what is left in Python's buffer."""
        self.quiet = True
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


# Progress goes to standard error, so that standard output can be piped.
# Words in square brackets are not markup, so `pip install 'prior-fast[dali]'` is printed unchanged.
stdout = Console(highlight=False, soft_wrap=True, markup=False)
stderr: Console = _ErrorConsole(stderr=True, highlight=False, soft_wrap=True, markup=False)


def progress(*extra_columns: str) -> Progress:
    """Progress with the remaining time: a bar in a terminal, elsewhere a line now and then, see `LogBar`.

    Worker processes, and the processes of a run but the first, show none.

    extra_columns: names of task fields (keywords of `add_task` and `update`) shown at the end of the line.
    """
    if multiprocessing.parent_process() is not None or os.environ.get("RANK", "0") != "0":
        return Bar(console=stderr, fields=extra_columns, disable=True)
    # FORCE_COLOR, which Jupyter sets, makes a pipe a terminal for rich; a bar would leave thousands of lines there.
    if not stderr.is_terminal or stderr.is_dumb_terminal or not stderr.file.isatty():
        return LogBar(stderr, extra_columns)
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *(TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in extra_columns),
        console=stderr,
        fields=extra_columns,
    )


@contextmanager
def busy(what: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """Show what is being done, as a task of the progress that is running, or else of its own.

    Args:
        what: a few words, such as "compiling stage 1".
        total: how much there is to do; None if nothing can be counted.

    Yields:
        The function that takes what was done since its last call.
    """
    there = running()
    with progress() if there is None else nullcontext(there) as bar:
        task = bar.add_task(what, total=total)
        try:
            yield lambda done: bar.advance(task, done)
        finally:
            # What is over needs no place on the screen.
            bar.remove_task(task)


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to standard output. Numbers are aligned right; floats have 4 decimals."""
    rows = [tuple(row) for row in rows]
    table = Table(title=title, title_justify="left")
    for column, name in enumerate(header):
        numeric = bool(rows) and all(isinstance(row[column], (int, float)) for row in rows)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row))
    stdout.print(table)
