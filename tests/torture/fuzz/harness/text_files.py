"""Text files: a text without zero bytes and carriage returns, or NotText in one line."""

from prior_fast.radiology.text_files import NotText, decode_text


def target(data: bytes) -> None:
    """Any bytes are a text or not."""
    try:
        text, encoding = decode_text(data)
    except NotText as error:
        assert "\n" not in str(error)
        return
    assert "\0" not in text and "\r" not in text
    text.encode("utf-8")  # has no half of a surrogate pair
    if encoding == "cp1252":
        assert len(text) == len(data.replace(b"\r\n", b"\n"))
    again, _ = decode_text(text.encode("utf-8"))
    assert again == text.removeprefix("\ufeff")
