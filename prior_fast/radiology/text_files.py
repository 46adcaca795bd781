"""Decoding the bytes of text files as people have them: any usual encoding, with or without a byte-order mark."""

import codecs
from pathlib import Path

UTF8, FALLBACK = "utf-8", "cp1252"
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


# A report has some kilobytes. A larger file is something else, and splitting it would keep a worker for minutes.
MOST_REPORT_BYTES = 4_000_000


class NotText(ValueError):
    """The bytes are no text. The message is one line without the path."""


def read_report_file(path: Path) -> tuple[str, str]:
    """The text of a report's file and its encoding, as `decode_text` reads them.

    Raises:
        NotText: as in `decode_text`, or the file has more than `MOST_REPORT_BYTES`.
        OSError: the file can't be read.
    """
    with path.open("rb") as file:
        data = file.read(MOST_REPORT_BYTES + 1)
    check_report_size(len(data), "bytes")
    return decode_text(data)


def check_report_size(size: int, unit: str) -> None:
    """Refuse a report with more than `MOST_REPORT_BYTES` bytes or characters.

    Raises:
        NotText: it has more.
    """
    if size > MOST_REPORT_BYTES:
        raise NotText(f"no report: it has more than {MOST_REPORT_BYTES:,} {unit}")


def decode_text(data: bytes) -> tuple[str, str]:
    """Decode a text; line ends become "\\n".

    A byte-order mark names the encoding and is removed. Without one, the text is UTF-8 if it is valid UTF-8, else
    cp1252 (Windows), of which latin-1 text is a part. The five bytes that cp1252 does not have are read as latin-1.

    Returns:
        The text and the encoding that was used.

    Raises:
        NotText: the bytes have a zero byte, as images and other binary files do, or are cut off UTF-16.
    """
    text, encoding = _decode(data)
    if "\0" in text:
        raise NotText(f"no text: a zero byte at position {text.index(chr(0))}")
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _decode(data: bytes) -> tuple[str, str]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding), encoding
            except UnicodeDecodeError as error:
                place = len(mark) + error.start
                raise NotText(f"the byte-order mark is that of {encoding}, but byte {place} is not") from error
    try:
        return data.decode(UTF8), UTF8
    except UnicodeDecodeError:
        pass
    try:
        return data.decode(FALLBACK), FALLBACK
    except UnicodeDecodeError:
        return data.decode("latin-1").translate(_CHARACTERS), FALLBACK


def _character(byte: int) -> str:
    single = bytes([byte])
    try:
        return single.decode(FALLBACK)
    except UnicodeDecodeError:
        return single.decode("latin-1")


# What each byte is in the fallback encoding.
_CHARACTERS = {byte: _character(byte) for byte in range(256)}
