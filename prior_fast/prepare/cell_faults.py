"""What makes the cells of a table unusable: characters that are in no text, and lists that are nested too deeply.

Names of files can't have a zero byte, and half of a surrogate pair can't be written to any file.
"""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from prior_fast.errors import UsageError

_NO_CHARACTER = re.compile("[\0\ud800-\udfff]")
_DEEPEST = 20


def fault_of(value: Any, depth: int = 0) -> str:
    """Why a value of a JSON file is unusable, with what is in it; "" if it is usable."""
    if isinstance(value, str):
        found = _NO_CHARACTER.search(value)
        return f"the character \\u{ord(found[0]):04x} is in no text; remove it" if found else ""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if not isinstance(value, list):
        return ""
    if depth > _DEEPEST:
        return "lists or objects are nested too deeply for a table"
    return next((fault for part in value if (fault := fault_of(part, depth + 1))), "")


def check_strings(path: Path, table: pa.Table) -> None:
    """Refuse texts with a zero byte.

    Raises:
        UsageError: a text has one.
    """
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            row = pc.index(pc.match_substring(column, "\0"), True).as_py()
            if row >= 0:
                raise UsageError(f"{path}, row {row + 1}: a zero byte in column {name!r}; remove it")
