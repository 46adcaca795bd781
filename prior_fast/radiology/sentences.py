"""Splitting a section of a radiology report into sentences by rules, in English and Spanish, without a model."""

import re
from collections.abc import Iterator

# Where a sentence may end: end marks with closing quotes and brackets, before white space or the end of the text; or a
# period with a missing space ("normal.The heart"). A run of end marks is tried from its first one only: the others
# would fail as it does, and a long run would take quadratic time. The marks that open a question are found on the way.
_OPENING = "¿¡"
_MARK = re.compile(rf"(?<![.!?])[.!?]+[\"')\]]*(?=\s|$)|(?<=[a-zß-ÿ]{{2}})\.(?=[A-ZÀ-Þ][a-zß-ÿ])|[{_OPENING}]")

# The number of a list item, at the start of a line. Spanish lists have "1.-" too.
_LIST_ITEM = re.compile(r"^[ \t]*(\d{1,2})(?:[.)][ \t]+(?=\S)|[.)]-[ \t]*(?=[^\W\d_]))", re.MULTILINE)
_LEADING_NUMBER = re.compile(r"^\d{1,2}(?:[.)] |[.)]- ?(?=[^\W\d_]))")
_BULLET = re.compile(r"^[ \t]*([-*•·▪])[ \t]+(?=[^\W_])", re.MULTILINE)

# A name or a number follows these, so a sentence never ends with them.
_TITLES = frozenset(("dr", "drs", "mr", "mrs", "ms", "prof", "st", "dra", "dres", "dras", "sra", "srta"))
_NEVER_LAST = _TITLES | {"vs", "e.g", "i.e", "eg", "ie", "cf", "viz", "approx", "fig", "p.ej", "ej"}
# A sentence may end with these. It continues if a lowercase letter follows.
_UNITS = frozenset(
    (
        *("mm", "cm", "ml", "cc", "kg", "mg", "min", "max", "sec", "hr", "hrs", "wk", "wks", "mo", "yr", "yrs"),
        *("etc", "incl", "resp", "pt", "pts", "jr", "sr", "inc"),
        *("izq", "izqdo", "izqda", "izdo", "izda", "dcho", "dcha", "dch", "der", "rx", "pte", "tto", "sup", "inf"),
    )
)
# The same, and a number may follow too.
_BEFORE_NUMBER = frozenset(("aprox", "nº", "núm", "n°"))
_MONTHS = frozenset(("jan", "feb", "mar", "apr", "aug", "sep", "sept", "oct", "nov", "dec", "ene", "abr", "dic"))
_DOTTED = re.compile(r"(?:[a-z]\.)+[a-z]", re.IGNORECASE)


def split_sentences(section_text: str) -> list[str]:
    """Split a section's text into its sentences, in order. White space is collapsed; end marks are kept.

    A period does not end a sentence inside a decimal ("1.5 cm"), or after a title, an initial or "vs.". If a lowercase
    letter follows, it also does not end one after a unit, a dotted abbreviation ("3:15 p.m. by phone") or an ellipsis.
    A period with a blank before it, as in tokenized reports, always ends one, except after a title or "vs". Each item
    of a numbered list is a sentence, with or without a period, and each item of two or more with the same bullet; its
    number or bullet is dropped. Pieces without a letter ("___.", "2.", ".") are dropped.
    """
    items = (item for part in _split_list(section_text) for item in _split_bullets(part))
    sentences = (sentence for item in items for sentence in _split_item(" ".join(item.split())))
    stripped = (_LEADING_NUMBER.sub("", sentence.strip()) for sentence in sentences)
    return [sentence for sentence in stripped if any(map(str.isalpha, sentence))]


def _split_item(text: str) -> Iterator[str]:
    """The sentences of a text without a list, whose white space is collapsed. The time is linear in its length."""
    begin, opened = 0, -1
    for match in _MARK.finditer(text):
        mark, (start, end) = match[0], match.span()
        if mark in _OPENING:
            opened = start
        elif end == len(text) or _ends_sentence(text, begin, opened, mark, start, end):
            yield text[begin:end]
            begin = end
    yield text[begin:]


def _split_list(text: str) -> list[str]:
    """The items of a numbered list, without numbers; only lines numbered 1, 2, 3, ... in this order start an item.

    The order distinguishes a list's "2." from a number that ends a sentence at the start of a wrapped line.
    """
    items, begin, last = [], 0, 0
    for match in _LIST_ITEM.finditer(text):
        number = int(match[1])
        if number in (1, last + 1):
            items.append(text[begin : match.start()])
            begin, last = match.end(), number
    return [*items, text[begin:]]


def _split_bullets(text: str) -> list[str]:
    """The items of a list with bullets, without them; a single line that begins with a dash is no list."""
    matches = list(_BULLET.finditer(text))
    if len(matches) < 2 or len({match[1] for match in matches}) > 1:
        return [text]
    ends = [*(match.start() for match in matches[1:]), len(text)]
    return [text[: matches[0].start()], *(text[match.end() : end] for match, end in zip(matches, ends, strict=True))]


def _ends_sentence(text: str, begin: int, opened: int, mark: str, start: int, end: int) -> bool:
    """Whether `mark` = text[start:end], after which more text follows, ends the sentence that starts at `begin`.

    opened: the place of the last "¿" or "¡" before the mark.
    """
    following = text[end + (text[end] == " ")]
    spaced = start > 0 and text[start - 1] == " "
    first = begin + (text[begin] == " ")
    if mark[0] != ".":
        if opened >= begin:
            # "Opacidad ¿neumonía? basal": the question is a part of the sentence.
            return not following.islower() or opened <= first
        # "? pneumonia": a question mark with a space before it queries the word after it.
        return not spaced
    if mark.startswith(".."):
        return not following.islower()
    if mark != ".":
        return True
    before, word = _last_words(text, first, start - spaced)
    word = word.lstrip("([\"'")
    name = word.lower()
    if name in _NEVER_LAST:
        return False
    if spaced:
        return True
    if len(word) == 1 and word.isalpha():
        return not following.islower() and not _is_initial(word, before)
    if _DOTTED.fullmatch(word):
        return following.isupper()
    if name in _BEFORE_NUMBER:
        return not (following.isdigit() or following == "_" or following.islower())
    if name in _MONTHS:
        return not (following.isdigit() or following == "_")
    return not (name in _UNITS and following.islower())


def _last_words(text: str, begin: int, end: int) -> tuple[str, str]:
    """The last two words of text[begin:end], "" where there is none. Only these words are looked at."""
    last = text.rfind(" ", begin, end) + 1 or begin
    before = text.rfind(" ", begin, max(last - 1, begin)) + 1 or begin
    return text[before : max(last - 1, begin)], text[last:end]


def _is_initial(letter: str, before: str) -> bool:
    """Whether a single letter with a period is an initial or a list label; `before`: the word before it."""
    if not letter.isupper():
        return False
    if not before:
        return True
    previous = before.rstrip(".")
    return previous.lower() in _TITLES or (before.endswith(".") and len(previous) == 1)
