"""Tables as lines of text."""

import csv
import io

from hypothesis import given, strategies

from prior_fast.tables import csv_text, markdown_table, plain_table, without_repeats


def test_a_plain_table_is_aligned_and_a_row_of_one_cell_is_not_counted() -> None:
    rows = [("op", "1.5"), ("a row that stands by itself",), ("longer", "22")]
    assert plain_table(("name", "us"), rows, left=(0,)) == [
        "name     us",
        "------  ---",
        "op      1.5",
        "a row that stands by itself",
        "longer   22",
    ]


def test_a_markdown_table_says_which_columns_are_numbers() -> None:
    assert markdown_table(("name", "us"), [("op", "1")]) == ["| name | us |", "| --- | ---: |", "| op | 1 |"]
    assert markdown_table(("a", "b"), [], left=(0, 1)) == ["| a | b |", "| --- | --- |"]


def test_repeated_cells_are_left_empty_until_they_change() -> None:
    rows = [("a", "x", "1"), ("a", "x", "2"), ("a", "y", "3"), ("b", "y", "4"), ("b", "y", "5")]
    assert [row[0] for row in without_repeats(rows)] == ["a", "", "", "b", ""]
    assert [tuple(row[:2]) for row in without_repeats(rows, 2)] == [
        ("a", "x"),
        ("", ""),
        ("a", "y"),
        ("b", "y"),
        ("", ""),
    ]
    assert [row[-1] for row in without_repeats(rows, 2)] == ["1", "2", "3", "4", "5"]
    # A row of one cell is a heading: it stays, also twice.
    assert without_repeats([("a",), ("a",)]) == [("a",), ("a",)]


def test_csv_holds_no_formula_and_can_be_read_again() -> None:
    cells = (
        "=HYPERLINK(1)",
        "+1+1",
        "-cmd",
        "@SUM(A1)",
        "\tx",
        "\uff1d1",
        "-1.5",
        "+2",
        "1e-3",
        "a,b",
        'q"',
        "a\nb",
        "",
    )
    bare = ("'=HYPERLINK(1)", "'+1+1", "'-cmd", "'@SUM(A1)", "'\tx", "'\uff1d1", *cells[6:])
    assert list(csv.reader(io.StringIO(csv_text([cells, (1, -2.5, None)]), newline=""))) == [
        list(bare),
        ["1", "-2.5", ""],
    ]


@given(strategies.lists(strategies.text(strategies.characters(categories=("L", "N", "P", "Z", "C"))), min_size=1))
def test_any_text_can_be_a_cell(row: list[str]) -> None:
    text = csv_text([row])
    text.encode()
    (read,) = csv.reader(io.StringIO(text, newline=""))
    assert len(read) == len(row)
    assert not [cell for cell in read if cell[:1] in ("=", "@", "\t", "\r")]
