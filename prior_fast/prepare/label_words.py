"""The words that stand for a label in tables: one meaning for all readers of the user's own tables."""

import re
from typing import Any

from prior_fast.errors import UsageError
from prior_fast.prepare.any_table import cell_text, shown_list

_VALUES: dict[str, float] = {
    **dict.fromkeys(("1", "true", "yes", "y", "t", "positive", "pos", "present", "+"), 1.0),
    **dict.fromkeys(("0", "false", "no", "n", "f", "negative", "neg", "absent", "-"), 0.0),
    **dict.fromkeys(("-1", "uncertain", "unclear", "maybe", "possible", "equivocal"), -1.0),
}
_BLANK = ("", "na", "n/a", "nan", "null", "none", "nil", "unknown", "not mentioned", "<na>", "?", "-2")
_SEPARATORS = re.compile("[|;,]")


def label_value(cell: Any, where: str, column: str) -> float | None:
    """1, 0, -1 (uncertain), or None where blank.

    Args:
        where: the file and the line, for the error.

    Raises:
        UsageError: the cell is no label.
    """
    if isinstance(cell, bool):
        return float(cell)
    text = (cell_text(cell) or "").lower()
    if text in _BLANK:
        return None
    if text in _VALUES:
        return _VALUES[text]
    raise UsageError(
        f"{where}: {column!r} is {cell!r}, not a label: 1, 0, -1, blank, or a word such as yes, no, true, false, "
        "positive, negative, uncertain"
    )


def is_label(cell: Any) -> bool:
    """Whether a cell is a label or blank."""
    try:
        label_value(cell, "", "")
    except UsageError:
        return False
    return True


def split_names(cell: Any) -> list[str]:
    """The class names that a cell lists: a list, the text of a list, or names separated by "|", ";" or ","."""
    if isinstance(cell, str):
        cell = shown_list(cell)
    if isinstance(cell, (list, tuple)):
        return list(dict.fromkeys(text for value in cell if (text := cell_text(value))))
    text = cell_text(cell)
    return list(dict.fromkeys(name.strip() for name in _SEPARATORS.split(text) if name.strip())) if text else []
