"""The texts that bytes stand for."""

# Between these, a piece of text is repeated until the whole is long: time that is quadratic then shows.
STRETCH = "\x1f"
_LONG = 10_000


def text_of(data: bytes) -> str:
    """UTF-8 with marks for what is none. With two marks for stretching, the text between them is repeated."""
    text = data.decode("utf-8", "replace")
    before, *rest = text.split(STRETCH, 2)
    if len(rest) < 2 or not rest[0]:
        return text
    unit, after = rest
    return before + unit * (_LONG // len(unit)) + after
