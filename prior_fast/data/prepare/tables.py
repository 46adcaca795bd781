"""Reading the csv files of a MIMIC-CXR-JPG tree, with errors that name the file and the column."""

from difflib import get_close_matches
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from prior_fast.errors import UsageError


def find_csv(folder: Path, name: str) -> Path | None:
    """The file `name`.csv or `name`.csv.gz in `folder`, None when there is neither."""
    for candidate in (folder / f"{name}.csv", folder / f"{name}.csv.gz"):
        if candidate.is_file():
            return candidate
    return None


def read_csv(path: Path, columns: dict[str, pa.DataType], nullable: tuple[str, ...] = ()) -> pa.Table:
    """The named columns of a csv file, in the order and of the types asked for; other columns are ignored.

    Args:
        columns: the type of each column needed.
        nullable: the columns in which a cell may be empty.

    Raises:
        UsageError: the file is no csv, a column is absent, a value has the wrong type or is absent.
    """
    convert = pyarrow.csv.ConvertOptions(column_types=columns, strings_can_be_null=True)
    try:
        table = pyarrow.csv.read_csv(path, convert_options=convert)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{path} can't be read as csv: {_first_line(error)}") from error
    for name in columns:
        if name not in table.column_names:
            near = get_close_matches(name, table.column_names, n=1)
            hint = f" (is it {near[0]!r}?)" if near else ""
            raise UsageError(f"{path} has no column {name!r}{hint}; its columns are {', '.join(table.column_names)}")
        if name not in nullable and table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            raise UsageError(f"{path}: column {name!r} is empty in line {row + 2}")
    return table.select(list(columns))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
