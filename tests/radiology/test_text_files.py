import codecs
from pathlib import Path

import pytest

from prior_fast.radiology.text_files import MOST_REPORT_BYTES, NotText, decode_text, read_report_file

TABLE = [
    (b"", "", "utf-8"),
    (b"Normal.\n", "Normal.\n", "utf-8"),
    ("Tórax – “normal”".encode(), "Tórax – “normal”", "utf-8"),
    (codecs.BOM_UTF8 + "Tórax".encode(), "Tórax", "utf-8"),
    (codecs.BOM_UTF8, "", "utf-8"),
    (b"FINDINGS:\r\n Clear.\r\n\r\nEnd", "FINDINGS:\n Clear.\n\nEnd", "utf-8"),
    (b"FINDINGS:\rClear.\r\rEnd", "FINDINGS:\nClear.\n\nEnd", "utf-8"),
    ("Hallazgos en tórax: ¿neumonía?".encode("latin-1"), "Hallazgos en tórax: ¿neumonía?", "cp1252"),
    ("a “quoted” – it’s".encode("cp1252"), "a “quoted” – it’s", "cp1252"),
    (b"\x81\x8d\x8f\x90\x9d", "\x81\x8d\x8f\x90\x9d", "cp1252"),
    (b"\x93t\xf3rax\x94 \x81", "“tórax” \x81", "cp1252"),
    (codecs.BOM_UTF16_LE + "Tórax\r\nfin".encode("utf-16-le"), "Tórax\nfin", "utf-16-le"),
    (codecs.BOM_UTF16_BE + "Tórax\rfin".encode("utf-16-be"), "Tórax\nfin", "utf-16-be"),
    (codecs.BOM_UTF16_LE, "", "utf-16-le"),
]


@pytest.mark.parametrize(("data", "text", "encoding"), TABLE)
def test_table(data: bytes, text: str, encoding: str) -> None:
    assert decode_text(data) == (text, encoding)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "a zero byte at position 8"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a zero byte at position 4"),
        ("Normal".encode("utf-16-le"), "a zero byte at position 1"),
        (codecs.BOM_UTF32_LE + "Normal".encode("utf-32-le"), "a zero byte"),
        (codecs.BOM_UTF16_LE + b"N\x00o", "byte-order mark is that of utf-16-le, but byte 4 is not"),
        (codecs.BOM_UTF8 + b"N\xf3dulo", "byte-order mark is that of utf-8, but byte 4 is not"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(NotText, match=message):
        decode_text(data)


def test_a_report_may_have_4_million_bytes(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_bytes(b"a" * MOST_REPORT_BYTES)
    assert read_report_file(path) == ("a" * MOST_REPORT_BYTES, "utf-8")
    path.write_bytes(b"a" * (MOST_REPORT_BYTES + 1))
    with pytest.raises(NotText, match="no report: it has more than 4,000,000 bytes"):
        read_report_file(path)
