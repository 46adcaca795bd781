"""The names of a table's columns: reading a csv header, and showing names in messages."""

import csv
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path

from prior_fast.errors import UsageError

# No table of images or reports has so many. Each column takes work for each row.
MOST_COLUMNS = 10_000
_SHOWN, _LONGEST_SHOWN = 50, 80


def names_in_header(path: Path, lines: Iterable[str], delimiter: str = ",") -> list[str]:
    """The names in the header of a csv file, without blanks around them; "" for a column without a name.

    Args:
        lines: the lines of the file, of which only those of the header are read; none if the file is empty.

    Raises:
        UsageError: it is no header, or has more than `MOST_COLUMNS` names.
    """
    try:
        names = [name.strip() for name in next(csv.reader(lines, delimiter=delimiter), [])]
    except csv.Error as error:
        raise UsageError(
            f"{path}: its first line is no header of a csv file ({error}); it must have the names of the columns alone"
        ) from error
    if len(names) > MOST_COLUMNS:
        raise UsageError(
            f"{path}: its first line has {len(names):,} names, and a table may have {MOST_COLUMNS:,} columns; it must "
            "have the names of the columns alone"
        )
    return names


def repeated(names: Iterable[str]) -> list[str]:
    """The names that occur more than once, sorted; columns without a name are not counted."""
    return sorted(name for name, count in Counter(names).items() if name and count > 1)


def listed(names: Collection[str]) -> str:
    """The names for a message, in one line: the first 50, each cut to 80 characters."""
    shown = [" ".join(name[:_LONGEST_SHOWN].splitlines()) for name in islice(names, _SHOWN)]
    more = f", ... ({len(names):,} in all)" if len(names) > _SHOWN else ""
    return ", ".join(shown) + more
