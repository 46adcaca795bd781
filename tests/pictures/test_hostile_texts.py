"""Texts from data can't break a picture or the page: formulas, markup, control characters, great lengths."""

import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.cbook import is_math_text
from PIL import Image

from prior_fast.cli.main import main
from prior_fast.pictures.page import Picture, Section, write_page
from prior_fast.plotting.confusion import draw_confusion
from prior_fast.plotting.retrieved import Found, draw_retrieved_images, draw_retrieved_reports
from prior_fast.plotting.roc import draw_roc
from prior_fast.plotting.sheet import Sheet
from prior_fast.plotting.words import label, no_formula, one_line, wrap
from tests.evaluation.own_store import own_labels, rewrite, write_info
from tests.pictures.test_pictures_command import pictures, shown_files

HOSTILE = (
    r"$\foo$ and $x_{$",
    "<script>alert('x')</script> \"quoted\" & 'quoted'",
    "NUL \0, a bell \a, \x1b[31m red",
    "two\nlines\tand\u2028more\r\n",
    "\u202eright to left\u202c \u200f",
    "emoji \U0001f600 \U0001f9b4 and \u2603\ufe0f",
    "_hidden",
    "w" * 100_000,
    "many words " * 10_000,
    "",
    " ",
    "{} %s \\ \\$",
)
SURROGATE = "half \ud83d a character"


@pytest.fixture(autouse=True)
def _no_warning() -> None:
    warnings.simplefilter("error")


def drawn(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


@given(st.text(max_size=300), st.integers(8, 90))
def test_any_text_is_drawn_as_it_is(text: str, longest: int) -> None:
    line = one_line(text, longest)
    assert len(line) <= longest and line.isprintable() and line == " ".join(line.split())
    shown = label(text, longest)
    assert not is_math_text(shown) and not shown.startswith("_")
    assert shown.replace(r"\$", "$").removeprefix(" ") == line.removeprefix(" ")
    rows = wrap(text, longest, 3).split("\n")
    assert len(rows) <= 3 and all(len(row) <= longest for row in rows)


def test_names_are_kept_where_they_can_be() -> None:
    assert one_line("Pleural Effusion") == "Pleural Effusion"
    assert one_line("a" * 20, 10) == "aaaaaaa..."
    assert wrap("no pleural effusion is seen", 10, 2) == "no pleural\n..."
    assert no_formula("costs $5\nor $6") == "costs \\$5\nor \\$6"


def test_half_a_character_is_left_out() -> None:
    assert one_line(SURROGATE) == "half a character"


@pytest.mark.parametrize("text", [*HOSTILE, SURROGATE], ids=lambda text: ascii(text[:12]))
def test_every_picture_takes_any_text(text: str, tmp_path: Path) -> None:
    images = np.arange(2 * 224 * 224, dtype=np.uint8).reshape(2, 224, 224)
    truth = np.array([[True, False], [False, True], [True, False]])
    draw_roc(truth, np.array([[0.1, 0.2], [0.3, 0.1], [0.5, 0.4]]), [text, "other"], tmp_path / "roc.png")
    draw_confusion(np.array([[1, 2], [3, 4]]), [text, "other"], tmp_path / "confusion.png")
    found = Found(np.array([0]), np.array([[1]]), np.array([0]), np.array([[0]]), (text,))
    draw_retrieved_reports(found, images, np.array([0, 1]), [text, text], tmp_path / "reports.png")
    draw_retrieved_images(found, images, np.array([0, 1]), [text, text], tmp_path / "images.png")
    sheet = Sheet(1, [3], [1])
    sheet.image(0, 0, images[0])
    for write in (sheet.above, sheet.below, sheet.inside):
        write(0, 0, wrap(text, 30, 3))
    sheet.name(0, one_line(text))
    sheet.save(tmp_path / "sheet.png")
    for path in tmp_path.glob("*.png"):
        pixels = drawn(path)
        assert pixels.std() > 1 and max(pixels.shape) < 3000, path


class Reader(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(text: str, folder: Path) -> Reader:
    section = Section("key", text, text, (Picture(text, text),), (text, "b"), ((text, 1), (text, 2.5)), text)
    write_page(folder, text, text, [section])
    reader = Reader()
    reader.feed((folder / "index.html").read_text(encoding="utf-8"))
    return reader


@settings(max_examples=60)
@given(text=st.text(st.characters() | st.sampled_from("<>&\"'=`/ "), min_size=1))
def test_a_page_has_the_same_elements_whatever_the_texts(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("page")
    plain, reader = page_of("plain", folder), page_of(text, folder)
    assert reader.tags == plain.tags
    assert [name for name, _ in reader.attributes] == [name for name, _ in plain.attributes]


def test_a_page_shows_hostile_texts_as_text(tmp_path: Path) -> None:
    for text in (*HOSTILE, SURROGATE):
        reader = page_of(text, tmp_path)
        assert "script" not in reader.tags and dict(reader.attributes).keys() >= {"src", "alt"}
        assert not re.search(r"[\x00\ud800-\udfff]", reader.text)
    assert "half \ufffd a character" in reader.text


@pytest.mark.parametrize("with_sentences", [False, True])
def test_pictures_of_a_dataset_with_hostile_texts(
    with_sentences: bool, store: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warnings.resetwarnings()
    names = [name for name in HOSTILE if name.strip()]
    labels = {names[index]: values for index, values in enumerate(own_labels(store).values())}
    data = rewrite(store, tmp_path / "hostile", labels)
    table = pq.read_table(data / "manifest.parquet")
    counts = [len(report) for report in table["sentences"].to_pylist()]
    reports = [[names[(row + place) % len(names)] for place in range(count)] for row, count in enumerate(counts)]
    studies = [f"{names[row % len(names)]} {row}" for row in range(table.num_rows)]
    for name, values in (("sentences", pa.array(reports)), ("study", pa.array(studies))):
        table = table.set_column(table.schema.get_field_index(name), name, values)
    pq.write_table(table, data / "manifest.parquet")
    write_info(data, {})
    (tmp_path / "sentences.txt").write_text(
        "# $\\foo$ <b>\n" + "\n".join(["the heart $\\alpha$", "_x heart \U0001f600"])
    )
    words = [f"sentences={tmp_path / 'sentences.txt'}"] if with_sentences else []
    out = tmp_path / "out"
    assert pictures(run_folder, data, out, "count=2", "device=cpu", *words) == 0
    shown = capsys.readouterr()
    assert shown_files(out)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page and "Glyph" not in shown.err and "\x1b" not in shown.out
    assert main(["evaluate", "retrieval", "--checkpoint", str(run_folder), "--data", str(data),
                 "--out", str(tmp_path / "retrieval"), "by=study", "device=cpu"]) == 0  # fmt: skip
