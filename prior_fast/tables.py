"""Tables as lines of text: aligned for a terminal or a file, as Markdown, or as csv."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

# The last four are the wide forms of the first four, which some spreadsheets take for the same.
_FORMULA = ("=", "+", "-", "@", "\t", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_UNWRITABLE = re.compile("[\0\r\ud800-\udfff]")


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


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as the text of a csv file, safe to open in a spreadsheet (`plain_cell`)."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([plain_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def plain_cell(cell: object) -> object:
    """A cell that a spreadsheet shows as it is, where the text comes from a file of somebody else.

    A text that a spreadsheet would run as a formula, because it begins with "=", "+", "-", "@" or a tab, gets "'"
    before it; a number does not. Zero characters, carriage returns and halves of UTF-16 pairs, on which readers of csv
    or UTF-8 fail, are written as "\\x00", "\\r" and "\\udc80".
    """
    if not isinstance(cell, str):
        return cell
    text = _UNWRITABLE.sub(lambda found: ascii(found[0])[1:-1], cell)
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
