"""Tables as lines of text: aligned for a terminal or a file, or as Markdown."""

from collections.abc import Iterable, Sequence


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """The lines of an aligned table. They are not truncated to a terminal's width.

    A row with only one cell is a heading of the rows below it.

    Args:
        left: the columns that are aligned left; the others are aligned right.
    """
    widths = [max(map(len, column)) for column in zip(*(row for row in (header, *rows) if len(row) > 1))]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths))
        ).rstrip()
        for cells in (header, ["-" * width for width in widths], *rows)
    ]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """The lines of a Markdown table; columns that are not `left` are aligned right."""
    rule = ["---" if column in left else "---:" for column in range(len(header))]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]


def without_repeats(rows: Iterable[Sequence[str]], columns: int = 1) -> list[Sequence[str]]:
    """The rows, with the first `columns` cells emptied if they equal those of the previous row."""
    shown: list[Sequence[str]] = []
    before: Sequence[str] = ()
    for row in rows:
        first = list(row[:columns])
        shown.append([*[""] * columns, *row[columns:]] if first == before and len(row) > columns else row)
        before = first
    return shown
