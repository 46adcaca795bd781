"""Where the headers of a radiology report stand, by their words and by what surrounds them."""

import functools
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from prior_fast.radiology.section_headers import WANTED, Kind, header_kind, may_end_header, telling_kind

# Characters that are read as others, one for one, so that positions stay the same.
_ALIKE = str.maketrans("\uff1a\ufe55\xa0\u2002\u2003\u2010\u2011\u2013\u2014\u2212", "::   -----")

# What may precede a header in its line: bullets, the number of a list item, and the marks of bold or slanted text.
_LEAD = re.compile(
    r"[ \t>]*(?:(?:\#{1,6}|[-+•·▪◦]|\*(?=[ \t]))[ \t]*|(?P<number>\(?(?:\d{1,2}|[IVX]{1,4}|[A-Za-z])[.)]-?)[ \t]*)?"
    r"(?P<mark>\*{1,3}|_{1,3})?(?=[^\W\d_])"
)
# Words before blanks do not end with a blank: each run of blanks is then tried once, which is enough.
_WORDS = r"(?P<words>[^\W\d_][^:\n]{0,70}?)"
_WHOLE_WORDS = rf"{_WORDS}(?<![ \t])"
_SIGNED = re.compile(
    r"(?:report\s+)?(?:electronically|digitally)\s+(?:signed|approved|verified|authenticated)\b"
    r"|(?:dictated|transcribed|signed|interpreted|verified|firmado|informado|validado)\s+(?:by|por)\b|fdo\.",
    re.IGNORECASE,
)
_AFTER_SENTENCE = re.compile(r"[.!?;][\"')\]]*[ \t]+(?=[A-Z])")
_BLANKS, _MARKS = " \t", "*_"
_END_MARKS, _CLOSERS = ".!?;|", "\"')]"
# The number of a list item; the longest has five characters.
_NUMBER = re.compile(r"\(?\d{1,2}[.)]-?")
_TOKEN = re.compile(r"[^\s.;:|*_]+")
_PARTED = re.compile(r"[.;|*_]|\t|[ ]{2}")
_PLAIN = re.compile(r"[ \t]*:")
_CLOSED = re.compile(r"[ \t]*(?:[*_]{1,3}[ \t]*)?:[ \t]*[*_]{0,3}")
_NEXT_COLON = re.compile(r"\s*\n[ \t]*:[ \t]*")

_SECTIONS = (*WANTED, Kind.BEFORE, Kind.STUDY, Kind.AFTER)
_ALONE = (*_SECTIONS, Kind.TITLE, Kind.VIEWS)
# A line of running text that goes on in the next line is at least so long in reports without lower case.
_LONG_LINE = 40
_MOST_WORDS = 7


class Header(NamedTuple):
    """A header in a report.

    Attributes:
        start, end: where it begins, with the marks before it, and where its text begins.
        kind: what its text is.
        telling: whether it is known by one word only ("FINDINGS ON THE LEFT"), so that its other words may matter.
    """

    start: int
    end: int
    kind: Kind
    telling: bool = False


def find_headers(text: str) -> list[Header]:
    """All headers of a report in their order; lines must end with "\\n"."""
    text = text.translate(_ALIKE)
    upper, last = text == text.upper(), len(text.rstrip())
    found: list[Header] = []
    begin, before = 0, ""
    for line in text.splitlines(keepends=True):
        done = found[-1].end if found else 0
        inside = max(begin, done)
        end = begin + len(line.rstrip("\n"))
        if done <= begin:
            header = _at_line_start(text, begin, end, before, upper, last, found[-1].kind if found else None)
            if header:
                found.append(header)
                inside = header.end
        if inside < end:
            found += _inside(text, inside, end, upper)
        before, begin = line.strip(), begin + len(line)
    return found


def _at_line_start(
    text: str, begin: int, end: int, before: str, upper: bool, last: int, current: Kind | None
) -> Header | None:
    """The header at the start of the line text[begin:end].

    Args:
        before: the line before, without blanks around it.
        upper: whether the report has no lower case.
        last: where the report ends, but for white space.
        current: the kind of the last header.
    """
    lead = _LEAD.match(text, begin, end)
    if lead is None:
        return None
    first = lead.end()
    if text[first].islower() and not lead["mark"] and _goes_on(before):
        return None
    for pattern, kinds, form in _endings(lead["mark"] or ""):
        match = pattern.match(text, first, end)
        kind = header_kind(match["words"]) if match else None
        if match is None or kind is None or kind not in kinds:
            continue
        words = match["words"]
        if form == "colon" or (text[first].isupper() and (form != "caps" or (words.isupper() and not upper))):
            break
        if form == "alone":
            break
    else:
        return _signature(text, begin, first, end) or _by_telling_word(text, begin, first, end)
    if form == "alone":
        if upper and _goes_on(before) and (match.end() >= last or _wrapped(before, kind, current)):
            return None
        colon = _NEXT_COLON.match(text, match.end())
        return Header(begin, colon.end() if colon else match.end(), kind)
    if lead["number"] and kind is Kind.AFTER:
        return None  # an item of the impression, such as "2. Recommendation: CT."
    return Header(begin, match.end(), kind)


@functools.cache
def _endings(mark: str) -> tuple[tuple[re.Pattern[str], tuple[Kind, ...], str], ...]:
    """The ways in which a header ends at the start of a line, the kinds that may end so, and the way's name."""
    close = re.escape(mark)
    # Blanks around the closing mark, if there is one. Each blank can match in one way only.
    closed, hashed = (rf"(?:[ \t]*{close})?[ \t{more}]*" if mark else rf"[ \t{more}]*" for more in ("", "#"))
    return (
        (re.compile(rf"{_WHOLE_WORDS}{closed}:{closed}"), tuple(Kind), "colon"),
        (re.compile(rf"{_WHOLE_WORDS}{hashed}$"), _ALONE, "alone"),
        (re.compile(rf"{_WHOLE_WORDS}{closed}\.?(?:-+>?|=+)(?:(?=[ \t]){closed}|$)"), _SECTIONS, "dash"),
        (re.compile(r"(?P<words>[^\W\d_a-zà-ÿ][^:\na-zà-ÿ-]{0,70}?)\.?-+(?=[^\W_])"), _SECTIONS, "dash"),
        (re.compile(rf"{_WORDS}(?:{close})?(?:\t|[ ]{{3}})[ \t]*+(?=\S)"), _SECTIONS, "column"),
        (re.compile(rf"{_WORDS}[ \t]++(?=[A-ZÀ-Þ¿¡][a-zà-ÿA-Z])"), _SECTIONS, "caps"),
    )


def _goes_on(before: str) -> bool:
    """Whether a sentence of the line before goes on in the next line."""
    return bool(before) and before[-1] not in ".!?:;)]*_-=#"


def _wrapped(before: str, kind: Kind, current: Kind | None) -> bool:
    """Whether a line of a report without lower case is the rest of a sentence, not a header that stands alone.

    before: the line before, which has no end mark; current: the kind of the last header.
    """
    return len(before) >= _LONG_LINE or (kind not in WANTED and (current is None or current in WANTED))


def _signature(text: str, begin: int, first: int, end: int) -> Header | None:
    match = _SIGNED.match(text, first, end)
    return Header(begin, match.end(), Kind.AFTER) if match and text[first].isupper() else None


def _by_telling_word(text: str, begin: int, first: int, end: int) -> Header | None:
    match = _endings("")[0][0].match(text, first, end)
    kind = telling_kind(match["words"]) if match and text[first].isupper() else None
    return Header(begin, match.end(), kind, telling=True) if match and kind else None


def _inside(text: str, begin: int, end: int, upper: bool) -> Iterator[Header]:
    """The headers inside a line."""
    found: list[Header] = []
    done, colon = begin, text.find(":", begin, end)
    while colon >= 0:
        if header := _before_colon(text, done, colon, end, upper):
            found.append(header)
            done = header.end
        colon = text.find(":", colon + 1, end)
    last = begin
    for header in found:
        yield from _signatures_inside(text, last, header.start)
        yield header
        last = header.end
    yield from _signatures_inside(text, last, end)


def _before_colon(text: str, begin: int, colon: int, end: int, upper: bool) -> Header | None:
    """The header that ends with a colon, the longest one that is known; text before `begin` is not looked at."""
    stop = _without(text, begin, colon, _BLANKS + _MARKS)
    at_start = begin == 0 or text[begin - 1] == "\n"
    for start in _word_starts(text, max(begin, stop - 80), stop):
        words = text[start:stop]
        kind = _kind_inside(words)
        if kind is None:
            continue
        opened = _without(text, begin, start, _MARKS)
        boundary, numbered = _boundary(text, begin, opened)
        if numbered and kind is Kind.AFTER:
            return None
        in_capitals = words.isupper() and (not upper or kind in WANTED)
        if at_start and not words.isupper() and _only_space(text, begin, opened):
            continue  # `_at_line_start` took it for running text
        glued = opened > begin and not (text[opened - 1].isspace() or text[opened - 1] in ".;|")
        if glued or not (in_capitals or (boundary and kind in _SECTIONS)):
            continue
        closing = _CLOSED if opened < start else _PLAIN
        match = closing.match(text, stop, end)
        return Header(opened, match.end(), kind) if match else None
    return None


@functools.lru_cache(maxsize=4096)
def _kind_inside(words: str) -> Kind | None:
    """The kind of a header inside a line by its words; None for what is a part of a sentence there."""
    if not words[0].isalpha() or _PARTED.search(words):
        return None
    kind = header_kind(words)
    return None if kind is Kind.LABEL else kind


def _word_starts(text: str, begin: int, end: int) -> list[int]:
    """Where the last words of text[begin:end] begin, in their order; none if no header can end as it does."""
    backward = text[begin:end][::-1]
    last = _TOKEN.match(backward)
    if last is None or not ("(" in backward or may_end_header(text[end - last.end() : end])):
        return []
    return [end - word.end() for word in itertools.islice(_TOKEN.finditer(backward), _MOST_WORDS)][::-1]


def _without(text: str, begin: int, end: int, characters: str) -> int:
    """The end of text[begin:end] without the given characters at its end."""
    while end > begin and text[end - 1] in characters:
        end -= 1
    return end


def _only_space(text: str, begin: int, end: int) -> bool:
    while end > begin and text[end - 1].isspace():
        end -= 1
    return end == begin


def _boundary(text: str, begin: int, end: int) -> tuple[bool, bool]:
    """Whether text[begin:end] is empty or ends with a sentence or a wide gap; whether the number of an item follows."""
    bare = _without(text, begin, end, _BLANKS)
    for start in range(max(begin, bare - 5), bare):
        if _NUMBER.fullmatch(text, start, bare) and _is_boundary(text, begin, start):
            return True, True
    return _is_boundary(text, begin, end), False


def _is_boundary(text: str, begin: int, end: int) -> bool:
    bare = _without(text, begin, end, _BLANKS)
    if bare == begin or end - bare > 1 or text[bare:end] == "\t":
        return True
    last = _without(text, begin, bare, _CLOSERS)
    return last > begin and text[last - 1] in _END_MARKS


def _signatures_inside(text: str, begin: int, end: int) -> Iterator[Header]:
    for match in _AFTER_SENTENCE.finditer(text, begin, end):
        signed = _SIGNED.match(text, match.end(), end)
        if signed:
            yield Header(match.end(), signed.end(), Kind.AFTER)
            return
