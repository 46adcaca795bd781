"""Files that name images or reports: selection.csv of an earlier run, or an id in each line."""

import csv
from collections.abc import Sequence
from pathlib import Path

from prior_fast.errors import UsageError
from prior_fast.spelling import nearest
from prior_fast.tables import plain_cell

ID_COLUMNS = ("study_id", "image_id", "study")
CLASS_COLUMN = "class"


def read_ids(setting: str, path: str, answers: Sequence[str] | None = None) -> list[tuple[str, int | None]]:
    """The ids of a file and the class of each as a number in `answers`; None if the file does not name the class.

    A csv with a header has a column study_id, image_id or study, and may have a column named class. A file without a
    header has an id in each line.

    Args:
        setting: the setting that names the file, for errors.
        answers: the names of the classes; None ignores the file's.

    Raises:
        UsageError: the file can't be read, is empty, lacks the id column, has an unknown class or repeats an id.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{setting}={path}: can't be read ({reason})") from None
    if not lines:
        raise UsageError(f"{setting}={path}: names nothing")
    header = [cell.strip() for cell in lines[0]]
    known = [name for name in ID_COLUMNS if name in header]
    if known:
        lines, column = lines[1:], header.index(known[0])
        class_column = header.index(CLASS_COLUMN) if answers is not None and CLASS_COLUMN in header else None
    else:
        if len(header) > 1:
            raise UsageError(f"{setting}={path}: its header {','.join(header)!r} names no {' or '.join(ID_COLUMNS)}")
        column, class_column = 0, None
    found: dict[str, int | None] = {}
    for line in lines:
        if len(line) <= max(column, class_column or 0):
            raise UsageError(f"{setting}={path}: the line {','.join(line)!r} is too short")
        name = _as_written(line[column])
        if name in found:
            raise UsageError(f"{setting}={path}: names {name} twice")
        named = None if answers is None or class_column is None else _as_written(line[class_column])
        found[name] = None if named is None else _class(setting, path, named, answers or ())
    if not found:
        raise UsageError(f"{setting}={path}: names nothing")
    return list(found.items())


def _as_written(cell: str) -> str:
    """The text of a cell; a "'" that `prior_fast.tables.plain_cell` put before a formula is removed."""
    text = cell.strip()
    bare = text.removeprefix("'")
    return bare if text != bare and plain_cell(bare) == text else text


def _class(setting: str, path: str, name: str, answers: Sequence[str]) -> int:
    if name not in answers:
        hint = nearest(name, answers) or f": it is none of {', '.join(answers)}"
        raise UsageError(f"{setting}={path}: unknown class {name!r}{hint}")
    return list(answers).index(name)
