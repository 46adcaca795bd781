"""Splitting a section of a radiology report into sentences by rules, without a model to download."""

import re

# Where a sentence may end: end marks with closing quotes and brackets, before white space or the end of the text; or a
# period with a missing space ("normal.The heart").
_POSSIBLE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)|(?<=[a-z]{2})\.(?=[A-Z][a-z])")

# The number of a list item, at the start of a line.
_LIST_ITEM = re.compile(r"^[ \t]*(\d{1,2})[.)][ \t]+(?=\S)", re.MULTILINE)
_LEADING_NUMBER = re.compile(r"^\d{1,2}[.)] ")

# A name or a number follows these, so a sentence never ends with them.
_TITLES = frozenset(("dr", "drs", "mr", "mrs", "ms", "prof", "st"))
_NEVER_LAST = _TITLES | {"vs", "e.g", "i.e", "eg", "ie", "cf", "viz", "approx", "fig"}
# A sentence may end with these. It continues if a lowercase letter follows.
_UNITS = frozenset(
    (
        *("mm", "cm", "ml", "cc", "kg", "mg", "min", "max", "sec", "hr", "hrs", "wk", "wks", "mo", "yr", "yrs"),
        *("etc", "incl", "resp", "pt", "pts", "jr", "sr", "inc"),
    )
)
_MONTHS = frozenset(("jan", "feb", "mar", "apr", "aug", "sep", "sept", "oct", "nov", "dec"))
_DOTTED = re.compile(r"(?:[a-z]\.)+[a-z]", re.IGNORECASE)


def split_sentences(section_text: str) -> list[str]:
    """Split a section's text into its sentences, in order. White space is collapsed; end marks are kept.

    A period does not end a sentence inside a decimal ("1.5 cm"), or after a title, an initial or "vs.". If a lowercase
    letter follows, it also does not end one after a unit, a dotted abbreviation ("3:15 p.m. by phone") or an ellipsis.
    Each item of a numbered list is a sentence, with or without a period; its number is dropped. Pieces without a letter
    ("___.", "2.") are dropped.
    """
    sentences = []
    for item in _split_list(section_text):
        text = " ".join(item.split())
        begin = 0
        for mark in _POSSIBLE_END.finditer(text):
            if _ends_sentence(text, begin, mark):
                sentences.append(text[begin : mark.end()])
                begin = mark.end()
        sentences.append(text[begin:])
    stripped = (_LEADING_NUMBER.sub("", sentence.strip()) for sentence in sentences)
    return [sentence for sentence in stripped if any(character.isalpha() for character in sentence)]


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


def _ends_sentence(text: str, begin: int, mark: re.Match[str]) -> bool:
    """Whether `mark` ends the sentence that starts at `begin`."""
    following = text[mark.end() : mark.end() + 2].strip()[:1]
    *before, word = text[begin : mark.start()].strip().rsplit(" ", 2)
    word = word.lstrip("([\"'")
    if not following or not mark[0].startswith("."):
        # "? pneumonia": a question mark with a space before it queries the word after it.
        return not following or text[mark.start() - 1 : mark.start()] != " "
    if mark[0].startswith(".."):
        return not following.islower()
    if mark[0] != ".":
        return True
    name = word.lower()
    if name in _NEVER_LAST:
        return False
    if len(word) == 1 and word.isalpha():
        return not following.islower() and not _is_initial(word, before)
    if _DOTTED.fullmatch(word):
        return following.isupper()
    if name in _MONTHS:
        return not (following.isdigit() or following == "_")
    return not (name in _UNITS and following.islower())


def _is_initial(letter: str, before: list[str]) -> bool:
    """Whether a single letter with a period is an initial or a list label; `before`: the words before it."""
    if not letter.isupper():
        return False
    if not before:
        return True
    previous = before[-1].rstrip(".")
    return previous.lower() in _TITLES or (before[-1].endswith(".") and len(previous) == 1)
