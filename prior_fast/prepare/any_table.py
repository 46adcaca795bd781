"""Tables of any usual format: csv, tsv, JSON lines, Parquet. Columns are found by name, in any case."""

import ast
import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from prior_fast.errors import UsageError
from prior_fast.prepare.cell_faults import check_strings, fault_of
from prior_fast.prepare.column_names import MOST_COLUMNS, listed, names_in_header, repeated
from prior_fast.prepare.find_files import what_is_there
from prior_fast.radiology.text_files import NotText, decode_text
from prior_fast.spelling import nearest

FORMATS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
_DELIMITERS = (",", "\t", ";", "|")
# A row must be shorter.
_BLOCK = 1 << 24
# Errors of files that are no tables. zlib's is not one of the system.
_UNREADABLE = (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError, NotText)
_WHOLE_FLOAT = re.compile(r"-?\d+\.0+")


class Columns(Mapping[str, list[Any]]):
    """The columns of an Arrow table by name. Each becomes a list when it is read, so that unread ones take no time."""

    def __init__(self, table: pa.Table, places: dict[str, int]) -> None:
        self.table, self._places = table, places

    def __getitem__(self, name: str) -> list[Any]:
        return self.table.column(self._places[name]).to_pylist()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Fields(Mapping[str, list[Any]]):
    """The fields of JSON objects by name, as `Columns`: one that only some objects have is None in the others."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows, self._names = rows, dict.fromkeys(name for row in rows for name in row)

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self._names:
            raise KeyError(name)
        return [row.get(name) for row in self._rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Table:
    """A table in memory.

    Attributes:
        columns: a list of values for each column, None where blank. Cells of csv and tsv are texts; those of JSON and
            Parquet can also be numbers, truth values and lists.
        lines: the line of the file where each row begins, counted from 1; for Parquet the number of the row.
        encoding: the encoding of a text file, or "".
    """

    path: Path
    columns: Mapping[str, list[Any]]
    lines: list[int]
    encoding: str = ""

    def __len__(self) -> int:
        return len(self.lines)

    def find(self, option: str, given: str | None, common: Sequence[str], required: bool = True) -> str | None:
        """The name of a column: the given one, or else the first of `common` that the table has.

        Upper and lower case, blanks, "_" and "-" are not distinguished.

        Raises:
            UsageError: the given column is absent, or none of `common` is there and one is required; the message
                names `option`.
        """
        by_key: dict[str, str] = {}
        for name in self.columns:
            by_key.setdefault(_key(name), name)
        if given is not None:
            if given in self.columns:
                return given
            if _key(given) in by_key:
                return by_key[_key(given)]
            raise UsageError(
                f"{option} {given}: {self.path} has no such column{nearest(given, self.columns) or ';'} "
                f"it has {listed(self.columns)}"
            )
        for name in common:
            if _key(name) in by_key:
                return by_key[_key(name)]
        if required:
            raise UsageError(
                f"{self.path}: no column has a usual name for {option} ({', '.join(common[:6])}, ...); name it with "
                f"{option}: the table has {listed(self.columns)}"
            )
        return None

    def needed(self, *names: str) -> list[list[str | None]]:
        """The texts of columns that must be there, by their names in any case.

        Raises:
            UsageError: a column is absent.
        """
        found = [self.find(name, None, (name,), required=False) for name in names]
        for name, column in zip(names, found):
            if column is None:
                raise UsageError(
                    f"{self.path} has no column {name!r}{nearest(name, self.columns) or ';'} "
                    f"it has {listed(self.columns)}"
                )
        return [self.texts(str(column)) for column in found]

    def texts(self, name: str) -> list[str | None]:
        """The cells of a column as texts without blanks around them; None where blank. Whole floats lose their ".0"."""
        return [cell_text(value) for value in self.columns[name]]


def cell_text(value: Any) -> str | None:
    """A cell as a text; None if it is blank. `1.0` becomes "1": pandas saves whole numbers so beside blank cells."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return (text.split(".")[0] if _WHOLE_FLOAT.fullmatch(text) else text) or None


def shown_list(text: str) -> Any:
    """The list that a text in brackets shows, as JSON or as Python; the text itself if it shows none."""
    inside = text.strip()
    if not (inside.startswith("[") and inside.endswith("]")):
        return text
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(inside)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue  # `literal_eval` raises each of them for some text
    return inside[1:-1]


def read_table(path: Path, option: str = "--table") -> Table:
    """Read a table: .csv, .tsv, .txt (also .gz), .jsonl, .ndjson, .json (a list of objects), .parquet, .pq.

    The delimiter of a csv file is the one of comma, tab, semicolon and bar that its header has most often. Texts are
    UTF-8, else cp1252. Cells may hold line ends. A column without a name (pandas' index) is left out.

    Raises:
        UsageError: the file is absent, of another format, empty, or can't be read; the message names `option`.
    """
    if not path.is_file():
        raise UsageError(f"{option} {path}: there is no such file; {what_is_there(path)}")
    zipped = path.suffix.lower() == ".gz"
    suffix = (path.with_suffix("") if zipped else path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{option} {path}: its name must end in one of {', '.join(FORMATS)} (texts also .gz)")
    try:
        if suffix in (".parquet", ".pq"):
            table = _from_parquet(path)
        else:
            text, encoding = decode_text(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
            reader = _from_json if suffix in (".jsonl", ".ndjson", ".json") else _from_csv
            table = reader(path, text, encoding)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{option} {path} can't be read: {reason}") from error
    if len(table.columns) > MOST_COLUMNS:
        raise UsageError(f"{option} {path} has {len(table.columns):,} columns; a table may have {MOST_COLUMNS:,}")
    if not table.columns:
        raise UsageError(f"{option} {path} is empty")
    if not len(table):
        raise UsageError(f"{option} {path} has no row below its header")
    return table


def _from_parquet(path: Path) -> Table:
    table = pq.read_table(path)
    # Checks that texts are UTF-8; reading a column would fail.
    table.validate(full=True)
    check_strings(path, table)
    places = {name: place for place, name in enumerate(table.column_names) if name}
    named = {name: place for name, place in places.items() if not name.startswith("__index_level")}
    return Table(path, Columns(table, named), list(range(1, table.num_rows + 1)))


def _from_json(path: Path, text: str, encoding: str) -> Table:
    """JSON lines, or one list of objects."""
    if text.lstrip().startswith("["):
        rows = [(number, row) for number, row in enumerate(_load(path, text, 1), 1)]
    else:
        rows = [(number, _load(path, line, number)) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, row in rows:
        if not isinstance(row, dict):
            raise UsageError(f"{path}, line {number}: it is a {type(row).__name__}, not an object {{...}}")
        if fault := fault_of(row):
            raise UsageError(f"{path}, line {number}: {fault}")
    return Table(path, Fields([row for _, row in rows]), [number for number, _ in rows], encoding)


def _load(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}, line {line}: no JSON ({error})") from error
    except RecursionError as error:
        raise UsageError(f"{path}, line {line}: lists or objects are nested too deeply for a table") from error


def _from_csv(path: Path, text: str, encoding: str) -> Table:
    header = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=header.count)
    names = names_in_header(path, [header], delimiter)
    if not any(names):
        return Table(path, {}, [])
    if twice := repeated(names):
        raise UsageError(f"{path} has two columns {twice[0]!r}")
    unique = [name or f"\0{number}" for number, name in enumerate(names)]
    wrong: list[pyarrow.csv.InvalidRow] = []

    def refuse(row: pyarrow.csv.InvalidRow) -> str:
        wrong.append(row)
        return "error"

    try:
        cells = pyarrow.csv.read_csv(
            pa.BufferReader(text.encode()),
            # With several threads the rows have no numbers.
            read_options=pyarrow.csv.ReadOptions(
                column_names=unique, skip_rows=1, block_size=_BLOCK, use_threads=False
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=refuse
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(unique, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    except pa.ArrowInvalid as error:
        if not wrong:
            raise
        # pyarrow's message shows the row, which may have a report.
        row = wrong[0]
        raise UsageError(
            f"{path} can't be read: row {row.number - 1} below its header has {row.actual_columns} cells, the header "
            f"{row.expected_columns}; a cell with {delimiter!r} or a line end in it needs quotation marks around it"
        ) from error
    places = {name: place for place, name in enumerate(names) if name}
    return Table(path, Columns(cells, places), _lines(cells), encoding)


def _lines(cells: pa.Table) -> list[int]:
    """The line of each row. Line ends within cells move the rows after them."""
    within = np.zeros(cells.num_rows, np.int64)
    for column in cells.columns:
        within += pc.fill_null(pc.count_substring(column, "\n"), 0).to_numpy()
    return (2 + np.arange(cells.num_rows) + np.cumsum(within) - within).tolist()


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()
