"""Decoding the bytes of text files as people have them: any usual encoding, with or without a byte-order mark."""

import codecs

UTF8, FALLBACK = "utf-8", "cp1252"
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


class NotText(ValueError):
    """The bytes are no text. The message is one line without the path."""


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
        return "".join(_character(byte) for byte in data), FALLBACK


def _character(byte: int) -> str:
    single = bytes([byte])
    try:
        return single.decode(FALLBACK)
    except UnicodeDecodeError:
        return single.decode("latin-1")
