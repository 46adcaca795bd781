import gzip
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prior_fast.errors import UsageError
from prior_fast.prepare.any_table import cell_text, read_table, shown_list
from prior_fast.prepare.csv_tables import read_csv, read_rows


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
        ("a.csv", "x" * 140_000 + "\n1\n", "first line is no header of a csv file .*must have the names"),
        ("a.csv", ",".join(map(str, range(10_001))) + "\n1\n", "has 10,001 names, and a table may have 10,000"),
        ("a.jsonl", "".join(f'{{"{number}": 1}}\n' for number in range(10_001)), "has 10,001 columns"),
        ("a.jsonl", '{"a": 1}\n{"a": "x\\u0000"}\n', r"a.jsonl, line 2: the character \\u0000 is in no text"),
        ("a.jsonl", '{"a": [{"b": ["\\ud800"]}]}\n', r"a.jsonl, line 1: the character \\ud800 is in no text"),
        ("a.jsonl", '{"\\u0000": 1}\n', r"a.jsonl, line 1: the character \\u0000 is in no text"),
        ("a.jsonl", '{"a": ' + "[" * 30 + "]" * 30 + "}\n", "a.jsonl, line 1: lists or objects are nested too deeply"),
        ("a.json", "[" * 100_000, "a.json, line 1: lists or objects are nested too deeply"),
        ("a.jsonl", '{"a": ' + "9" * 5000 + "}\n", "a.jsonl, line 1: no JSON"),
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


@pytest.mark.parametrize("text", ["[" * 100_000 + "]", "[" + "-" * 100_000 + "1]", "[{[]: 1}]", "[" + "(" * 300 + "]"])
def test_what_shows_no_list_is_a_text(text):
    assert shown_list(text) == text[1:-1]


def test_a_parquet_table_has_only_texts(tmp_path):
    pq.write_table(pa.table({"n": [1, 2], "id": ["a", "b\0"]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"a.parquet, row 2: a zero byte in column 'id'; remove it"):
        read_table(tmp_path / "a.parquet")
    latin = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xe9"))
    pq.write_table(pa.table({"id": latin}), tmp_path / "b.parquet")
    with pytest.raises(UsageError, match=r"b.parquet can't be read: .*UTF8"):
        read_table(tmp_path / "b.parquet")


def test_a_damaged_gz_file_is_named(tmp_path):
    packed = bytearray(gzip.compress(b"id\n" + bytes(range(65, 91)) * 50))
    packed[12:20] = b"\xff" * 8
    (tmp_path / "a.csv.gz").write_bytes(packed)
    for read in (read_table, lambda path: read_csv(path, {"id": pa.string()})):
        with pytest.raises(UsageError, match=r"a\.csv\.gz can't be read"):
            read(tmp_path / "a.csv.gz")


def test_the_csv_reader_refuses_the_same(tmp_path):
    with pytest.raises(UsageError, match=r"a.csv: its first line is no header of a csv file \(field larger"):
        read_csv(save(tmp_path / "a.csv", "x" * 140_000 + "\n1\n"), {"id": pa.string()})
    with pytest.raises(UsageError, match=r"b.csv, row 2: a zero byte in column 'id'; remove it"):
        read_csv(save(tmp_path / "b.csv", "id\na\nb\0\n"), {"id": pa.string()})


def test_a_label_that_is_none_is_named_by_its_first_line(tmp_path):
    path = save(tmp_path / "a.csv", "id,label\na,yes\nb,what\nc,who\nd,what\n")
    with pytest.raises(UsageError, match=r"a.csv, line 3: 'label' is 'what', not a label"):
        read_rows(path, {"id": pa.string(), "label": pa.float64()}, labels=("label",))


def test_a_message_shows_some_of_many_columns(tmp_path):
    path = save(tmp_path / "a.csv", ",".join(f"c{number}" for number in range(60)) + "\n" + "1," * 59 + "1\n")
    with pytest.raises(UsageError, match=r"it has c0, c1, .*, c49, \.\.\. \(60 in all\)$"):
        read_table(path).needed("zz")


def test_a_row_with_more_cells_than_the_header_is_named_by_its_place_and_not_shown(tmp_path):
    path = tmp_path / "studies.csv"
    path.write_text('image,report\na.png,"one,\ntwo"\nb.png,No effusion,secret\n')
    with pytest.raises(UsageError, match=r"row 2 below its header has 3 cells, the header 2") as error:
        read_table(path)
    assert "secret" not in str(error.value) and "effusion" not in str(error.value)
