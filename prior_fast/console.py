"""The output of the commands: progress bars on standard error and short tables on standard output."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

# Progress goes to standard error, so that standard output can be piped.
# Words in square brackets are not markup, so `pip install 'prior-fast[dali]'` is printed unchanged.
stdout = Console(highlight=False, soft_wrap=True, markup=False)
stderr = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def progress(*extra_columns: str) -> Progress:
    """A progress bar with the remaining time. It draws nothing if standard error is not a terminal.

    extra_columns: names of task fields (keywords of `add_task` and `update`) shown at the end of the line.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *(TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in extra_columns),
        console=stderr,
        disable=not stderr.is_terminal,
    )


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
