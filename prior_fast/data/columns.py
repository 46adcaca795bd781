"""Reading columns of a Parquet file that must exist, be of known types and be complete."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from prior_fast.errors import UsageError


class Column(NamedTuple):
    """The type of a column.

    Attributes:
        words: for messages.
        fits: whether a type of Arrow is accepted.
        blank: whether values may be absent.
    """

    words: str
    fits: Callable[[pa.DataType], bool]
    blank: bool = False


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _list_of(fits: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    # A list column without any element may have no type of elements.
    return lambda kind: _is_list(kind) and (fits(kind.value_type) or pa.types.is_null(kind.value_type))


INTEGER = Column("whole numbers", pa.types.is_integer)
NUMBER = Column("numbers", _is_number)
LABEL = Column("numbers", _is_number, blank=True)
TEXT = Column("texts", _is_text)
TEXTS = Column("lists of texts", _list_of(_is_text))
NUMBERS = Column("lists of numbers", _list_of(_is_number), blank=True)
BOXES = Column("lists of boxes", _list_of(_list_of(_is_number)))
INTEGERS = Column("lists of whole numbers", _list_of(pa.types.is_integer))
PICTURE = Column("files of images", lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
MASK = Column("files of images", lambda kind: PICTURE.fits(kind) or pa.types.is_null(kind), blank=True)


def column_names(path: Path) -> list[str]:
    """The names of a file's columns.

    Raises:
        UsageError: the file can't be read.
    """
    return _schema(path).names


def read_columns(
    path: Path, wanted: Mapping[str, Column], filters: list[tuple[str, str, Any]] | None = None
) -> pa.Table:
    """Read the columns `wanted` of a Parquet file.

    filters: as in `pyarrow.parquet.read_table`.

    Raises:
        UsageError: the file can't be read, lacks a column, or a column has another type or absent values. The message
            names the file and the column.
    """
    schema = _schema(path)
    for name in [*wanted, *(column for column, *_ in filters or ())]:
        if name not in schema.names:
            raise UsageError(f"{path} has no column {name!r}; prepare the dataset again")
    try:
        table = pq.read_table(path, columns=list(wanted), filters=filters)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    for name, column in wanted.items():
        kind = table[name].type
        if not column.fits(kind):
            raise UsageError(f"{path}: the column {name!r} holds {kind}, not {column.words}; prepare the dataset again")
        if not column.blank and _has_nulls(table[name]):
            raise UsageError(f"{path}: the column {name!r} lacks values; prepare the dataset again")
    return table


def _has_nulls(column: pa.ChunkedArray) -> bool:
    if column.null_count:
        return True
    return any(_has_nulls(pa.chunked_array([chunk.flatten()])) for chunk in column.chunks if _is_list(chunk.type))


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UsageError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UsageError(f"{path} can't be read ({reason}); prepare the dataset again")
