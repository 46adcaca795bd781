"""Tables of both readers: columns of one length, or UsageError in one line that names the file."""

import gzip
import tempfile
from pathlib import Path

import pyarrow as pa

from prior_fast.errors import UsageError
from prior_fast.prepare.any_table import read_table, shown_list
from prior_fast.prepare.csv_tables import read_csv, read_rows
from prior_fast.prepare.label_words import split_names

SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".csv.gz", ".jsonl.gz", ".parquet")
_FOLDER = tempfile.TemporaryDirectory(prefix="tables")
_TYPES = {"id": pa.string(), "n": pa.int64(), "x": pa.float64()}


def target(data: bytes) -> None:
    """The first byte chooses the ending of the name; 8 more choices pack the rest with gzip first."""
    if not data:
        return
    suffix = SUFFIXES[data[0] % len(SUFFIXES)]
    path = Path(_FOLDER.name) / f"table{suffix}"
    packed = suffix.endswith(".gz") and data[0] >= len(SUFFIXES)
    path.write_bytes(gzip.compress(data[1:], 1) if packed else data[1:])
    try:
        table = read_table(path)
    except UsageError as error:
        _is_one_line(error, path)
    else:
        assert len(table) and len(table.columns)
        for name in table.columns:
            texts = table.texts(name)
            assert len(texts) == len(table.lines) == len(table.columns[name])
            for text in texts:
                assert text is None or (text == text.strip() and "\0" not in text)
                shown_list(text or "")
                split_names(text)
                (text or "").encode("utf-8")
        try:
            table.find("--id", "id", ())
            table.needed("id", "path")
        except UsageError as error:
            _is_one_line(error, path)
    if ".csv" in suffix:
        _read_csv(path)


def _read_csv(path: Path) -> None:
    for columns, labels in ((_TYPES, ()), ({"id": pa.string(), "label": pa.float64()}, ("label",))):
        try:
            rows = read_rows(path, columns, ("n", "label"), labels)
            read_csv(path, columns, ("id", "n", "x", "label"))
        except UsageError as error:
            _is_one_line(error, path)
        else:
            assert len({len(column) for column in rows.values()}) == 1


def _is_one_line(error: UsageError, path: Path) -> None:
    assert path.name in str(error) and len(str(error).splitlines()) == 1, str(error)
    str(error).encode("utf-8")
