"""Reading the csv files of public datasets, with errors that name the file, the column and the line."""

import gzip
import zlib
from difflib import get_close_matches
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from prior_fast.errors import UsageError
from prior_fast.prepare.cell_faults import check_strings
from prior_fast.prepare.column_names import listed, names_in_header
from prior_fast.prepare.label_words import label_value

_BLANK = ("", "nan", "NaN", "NA", "<NA>", "N/A", "n/a", "null", "NULL", "None", "none")


def find_csv(folder: Path, name: str) -> Path | None:
    """The file `name`.csv or `name`.csv.gz in `folder`; None if there is neither."""
    for candidate in (folder / f"{name}.csv", folder / f"{name}.csv.gz"):
        if candidate.is_file():
            return candidate
    return None


def read_csv(
    path: Path, columns: dict[str, pa.DataType], nullable: tuple[str, ...] = (), blank: tuple[str, ...] | None = None
) -> pa.Table:
    """Read the named columns of a csv file, in the given order and with the given types; others are ignored.

    Blanks around the names in the header are removed: one of SIIM-ACR's files has ` EncodedPixels`. A name is also
    found in another case. A whole number may be written as pandas saves it beside blank cells, "1.0".

    Args:
        columns: the type of each required column; the result has these names.
        nullable: the columns in which a cell may be empty.
        blank: the texts that count as an empty cell; None for pyarrow's list, which includes "NA" and "null".

    Raises:
        UsageError: the file is empty or not csv, a column is absent, a value has the wrong type or is absent.
    """
    names = _header(path)
    lower = {name.lower(): name for name in reversed(names)}
    found = {name: name if name in names else lower.get(name.lower()) for name in columns}
    for name, own in found.items():
        if own is None:
            near = get_close_matches(name, names, n=1)
            hint = f" (is it {near[0]!r}?)" if near else ""
            raise UsageError(f"{path} has no column {name!r}{hint}; its columns are {listed(names)}")
    words = {} if blank is None else {"null_values": list(blank)}
    # Whole numbers are read as floats first: "1.0" is no integer to Arrow.
    whole = [name for name, kind in columns.items() if pa.types.is_integer(kind)]
    types = {str(found[name]): pa.float64() if name in whole else kind for name, kind in columns.items()}
    convert = pyarrow.csv.ConvertOptions(
        column_types=types, include_columns=[str(name) for name in found.values()], strings_can_be_null=True, **words
    )
    reading = pyarrow.csv.ReadOptions(column_names=_unique(names), skip_rows=1)
    try:
        table = pyarrow.csv.read_csv(path, read_options=reading, convert_options=convert)
        table = table.rename_columns(list(found))
        for name in whole:
            table = table.set_column(table.column_names.index(name), name, table[name].cast(columns[name]))
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} can't be read as csv: {_reason(error)}") from error
    check_strings(path, table)
    for name in columns:
        if name not in nullable and table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            raise UsageError(f"{path}: column {name!r} is empty in line {row + 2}")
    return table.select(list(columns))


def read_rows(
    path: Path, columns: dict[str, pa.DataType], nullable: tuple[str, ...] = (), labels: tuple[str, ...] = ()
) -> dict[str, list]:
    """Like `read_csv`, but each column is a list. A cell is empty if it has no text, or one of the words with which
    pandas and others save it ("NaN", "None"); its value is None.

    Args:
        labels: columns of labels, in which words such as True and no stand for 1 and 0. Their values are floats.

    Raises:
        UsageError: as in `read_csv`, or there is no row below the header.
    """
    types = {name: pa.string() if name in labels else kind for name, kind in columns.items()}
    table = read_csv(path, types, nullable, blank=_BLANK)
    if not table.num_rows:
        raise UsageError(f"{path} has no row below its header")
    rows = {name: table[name].to_pylist() for name in columns}
    for name in labels:
        lines: dict[str | None, int] = {}
        for line, text in enumerate(rows[name], 2):
            lines.setdefault(text, line)
        values = {text: _label(f"{path}, line {line}", text, name) for text, line in lines.items()}
        rows[name] = [values[text] for text in rows[name]]
    return rows


def _label(where: str, text: str | None, name: str) -> float | None:
    """The number of a cell, also if it is no label; a word's label."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return label_value(text, where, name)


def _unique(names: list[str]) -> list[str]:
    """Names by which Arrow can tell columns apart: pandas' index has none, and ignored columns may repeat."""
    first = {name: place for place, name in reversed(list(enumerate(names)))}
    return [name if first[name] == place and name else f"\0{place}" for place, name in enumerate(names)]


def _header(path: Path) -> list[str]:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            names = names_in_header(path, file)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read as csv: {_reason(error)}") from error
    if not names:
        raise UsageError(f"{path} is empty")
    return names


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
