import gzip
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prior_fast.errors import UsageError
from prior_fast.prepare.any_table import cell_text, read_table, shown_list


def save(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_of_any_delimiter_with_line_ends_in_cells(tmp_path, delimiter):
    rows = ["Study ID, Report ,x", '1,"two\nlines",', '007,"a ""word""",NA']
    text = "\r\n".join(row.replace(",", delimiter) for row in rows)
    table = read_table(save(tmp_path / "a.csv", text + "\r\n"))
    assert dict(table.columns) == {"Study ID": ["1", "007"], "Report": ["two\nlines", 'a "word"'], "x": [None, "NA"]}
    assert table.lines == [2, 4]


@pytest.mark.parametrize(
    ("encoding", "seen"), [("utf-8", "utf-8"), ("utf-8-sig", "utf-8"), ("latin-1", "cp1252"), ("utf-16", "utf-16-le")]
)
def test_encodings(tmp_path, encoding, seen):
    table = read_table(save(tmp_path / "a.tsv", "ID\ttext\n1\tcafé Sjögren\n", encoding))
    assert table.columns["text"] == ["café Sjögren"]
    assert table.encoding == seen


def test_gz_json_lines_json_and_parquet_agree(tmp_path):
    rows = [{"id": 1, "paths": ["a", "b"], "text": "x\ny"}, {"id": 2, "paths": [], "text": None}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps(rows), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    tables = [read_table(path) for path in sorted(tmp_path.iterdir())]
    assert len(tables) == 4
    for table in tables:
        assert dict(table.columns) == {name: [row[name] for row in rows] for name in rows[0]}
        assert len(table) == 2


def test_a_column_that_only_some_json_lines_have_is_blank_in_the_others(tmp_path):
    table = read_table(save(tmp_path / "a.jsonl", '{"a": 1}\n{"b": 2}\n'))
    assert dict(table.columns) == {"a": [1, None], "b": [None, 2]}


def test_pandas_index_is_left_out(tmp_path):
    assert list(read_table(save(tmp_path / "a.csv", ",a,b\n0,1,2\n1,3,4\n")).columns) == ["a", "b"]
    frame = pa.table({"a": [1], "__index_level_0__": [7]})
    pq.write_table(frame, tmp_path / "a.parquet")
    assert list(read_table(tmp_path / "a.parquet").columns) == ["a"]


def test_columns_are_found_in_any_case(tmp_path):
    table = read_table(save(tmp_path / "a.csv", "Image Path,REPORT,patient-id\na,b,c\n"))
    assert table.find("--image", None, ("path", "image_path")) == "Image Path"
    assert table.find("--report", "report", ()) == "REPORT"
    assert table.find("--subject", None, ("subject_id", "patientid")) == "patient-id"
    assert table.find("--split", None, ("split",), required=False) is None


def test_messages_name_the_option_the_file_and_the_columns(tmp_path):
    path = save(tmp_path / "a.csv", "image,reprot\na,b\n")
    with pytest.raises(UsageError, match=r"--report report: .*a.csv has no such column: did you mean 'reprot'"):
        read_table(path).find("--report", "report", ())
    with pytest.raises(UsageError, match=r"no column has a usual name for --report .*has image, reprot"):
        read_table(path).find("--report", None, ("report", "text"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "a,b\n", "has no row below its header"),
        ("a.csv", "a,a\n1,2\n", "two columns 'a'"),
        ("a.csv", "a,b\n1,2,3\n", "can't be read"),
        ("a.jsonl", '{"a": 1}\n{"a"\n', "line 2: no JSON"),
        ("a.jsonl", '{"a": 1}\n[2]\n', r"line 2: it is a list, not an object"),
        ("a.parquet", "no parquet at all", "can't be read"),
        ("a.xlsx", "x", "must end in one of .csv"),
    ],
)
def test_tables_that_can_not_be_read(tmp_path, name, text, message):
    with pytest.raises(UsageError, match=message):
        read_table(save(tmp_path / name, text))


def test_a_missing_or_binary_file(tmp_path):
    with pytest.raises(UsageError, match=r"--labels .*none.csv: there is no such file"):
        read_table(tmp_path / "none.csv", "--labels")
    (tmp_path / "b.csv").write_bytes(b"a,b\n\0\1\2\n")
    with pytest.raises(UsageError, match="zero byte"):
        read_table(tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (math.nan, None),
        ("  ", None),
        (1.0, "1"),
        ("12345.0", "12345"),
        ("1.50", "1.50"),
        (" a ", "a"),
        (0, "0"),
    ],
)
def test_cells_as_texts(value, text):
    assert cell_text(value) == text


def test_lists_shown_as_text():
    assert shown_list('["a", "b"]') == shown_list("['a', 'b']") == ["a", "b"]
    assert shown_list("a.png") == "a.png"
    assert shown_list("[a, b]") == "a, b"
