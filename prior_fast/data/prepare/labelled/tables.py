"""Reading the csv files of the labelled datasets, with errors that name the file and the column."""

import csv
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from prior_fast.errors import UsageError


def read_rows(path: Path, columns: dict[str, pa.DataType], nullable: tuple[str, ...] = ()) -> dict[str, list]:
    """The named columns of a csv file, each a list; other columns are ignored.

    Blanks around the names in the header are no part of them: one of SIIM-ACR's files has ` EncodedPixels`.

    Args:
        columns: the type of each column needed.
        nullable: the columns in which a cell may be empty; it is None then.

    Raises:
        UsageError: the file is empty or no csv, a column is absent, a value has the wrong type or is absent.
    """
    names = _header(path)
    for name in columns:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f" (is it {near[0]!r}?)" if near else ""
            raise UsageError(f"{path} has no column {name!r}{hint}; its columns are {', '.join(names)}")
    convert = pyarrow.csv.ConvertOptions(
        column_types=columns, include_columns=list(columns), strings_can_be_null=True, null_values=[""]
    )
    reading = pyarrow.csv.ReadOptions(column_names=names, skip_rows=1)
    try:
        table = pyarrow.csv.read_csv(path, read_options=reading, convert_options=convert)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{path} can't be read as csv: {str(error).splitlines()[0]}") from error
    if not table.num_rows:
        raise UsageError(f"{path} has no row below its header")
    for name in columns:
        if name not in nullable and table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            raise UsageError(f"{path}: column {name!r} is empty in line {row + 2}")
    return {name: table[name].to_pylist() for name in columns}


def need(folder: Path, *names: str) -> Path:
    """The first of the files or folders `names` that is in the folder given as --images.

    Raises:
        UsageError: none is.
    """
    if not folder.is_dir():
        raise UsageError(f"--images {folder}: there is no such folder")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise UsageError(f"--images {folder}: there is no {' or '.join(names)} in it; give the folder that holds it")


def compare_files(ids: Iterable[str], files: Iterable[Path]) -> tuple[dict[str, Path], list[str], list[str]]:
    """Which of the images that a table names have a DICOM file.

    Returns:
        The file of each id, the ids without one, and notes on files that no row names.
    """
    by_id: dict[str, Path] = {}
    notes, twice = [], 0
    for path in sorted(files):
        twice += path.stem in by_id
        by_id.setdefault(path.stem, path)
    wanted = set(ids)
    if nameless := len(by_id.keys() - wanted):
        notes.append(f"{nameless} DICOM file(s) without a row in the table were not read")
    if twice:
        notes.append(f"{twice} DICOM file(s) have the name of another one; the first of each, by path, was read")
    return {name: by_id[name] for name in wanted & by_id.keys()}, sorted(wanted - by_id.keys()), notes


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read as csv: {error}") from error
    if not names:
        raise UsageError(f"{path} is empty")
    return [name.strip() for name in names]
