"""Findings and impression of reports from anywhere, in English and Spanish, by tolerant rules for their headers.

A header stands at the start of a line in any case, or inside a line in capitals, after a sentence or in a column of its
own. Markdown marks, bullets and numbers may precede it. Unknown headers ("Heart: normal.") are a part of the text.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prior_fast.radiology.header_search import Header, find_headers
from prior_fast.radiology.section_headers import WANTED, Kind, header_kind

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_BLANK_LINE = re.compile(r"\n[ \t]*\n\s*")
# Longer than the marks of de-identification.
_RULE = re.compile(r"^[ \t]*[-_=*]{10,}[ \t]*$", re.MULTILINE)
_SOLID = re.compile(r"\S")
# A line that goes on in the next one is at least so long.
_WRAPPED = 55
# Capitalized lines with these words are no titles.
_STATEMENT = re.compile(r"\b(?:no|not|normal|clear|stable|unchanged|acute|without|sin|estable)\b", re.IGNORECASE)


class _Part(NamedTuple):
    """A piece of the report: its kind, None where no header claims it, and its text."""

    kind: Kind | None
    text: str


def tolerant_sections(report: str) -> list[str] | None:
    """The texts of all findings, then of all impressions, each in the order of the report.

    Without a header the whole report is one text. If it has headers but no findings, text that no dropped header claims
    stands for them: text before the first header, without its title; text below the names of the views; a paragraph
    that follows the paragraph of a dropped section.

    Returns:
        None when the report has headers but no findings, no impression and no other text.
    """
    text = _LINE_ENDS.sub("\n", report)
    headers = _counting(find_headers(text))
    parts = [part for part in _parts(text, headers) if any(character.isalpha() for character in part.text)]
    findings, impression = ([part.text for part in parts if part.kind is kind] for kind in WANTED)
    findings = [words for words in findings if header_kind(words.strip(" \t\n.")) is not Kind.VIEWS]
    if not findings:
        findings = [part.text for part in parts if part.kind is None]
    if not headers or (not findings and not impression and not _tells_sections(headers)):
        return [text]
    return [_RULE.sub("", words) for words in findings + impression] or None


def _tells_sections(headers: Sequence[Header]) -> bool:
    return any(header.kind not in (Kind.TITLE, Kind.VIEWS, Kind.LABEL) for header in headers)


def _counting(headers: Sequence[Header]) -> list[Header]:
    """The headers that begin something new; the words of the others are a part of the text."""
    counting: list[Header] = []
    current: Kind | None = None
    for header in headers:
        if current in WANTED and header.kind in (Kind.LABEL, Kind.VIEWS):
            continue
        if current in (None, Kind.AFTER, Kind.LABEL, Kind.VIEWS, Kind.TITLE) and header.kind is Kind.LABEL:
            continue
        # "Comparison with the prior film: no change." is a sentence of the findings.
        if current in WANTED and header.telling and header.kind not in WANTED:
            continue
        counting.append(header)
        if header.kind not in (Kind.TITLE, Kind.LINE) or current not in WANTED:
            current = header.kind
    return counting


def _parts(text: str, headers: Sequence[Header]) -> Iterator[_Part]:
    """The pieces of the report in their order, without the headers."""
    ends = [*(header.start for header in headers), len(text)]
    yield _Part(None, _without_title(text[: ends[0]]))
    # The kind of text below a dropped paragraph: inside the findings it belongs to them.
    around: Kind | None = None
    for header, end in zip(headers, ends[1:], strict=True):
        body = text[header.end : end]
        if header.kind in WANTED:
            around = header.kind
            yield _Part(around, text[header.start : end] if header.telling else body)
        elif header.kind is Kind.LABEL:
            yield _Part(around, text[header.start : end])
        elif header.kind in (Kind.TITLE, Kind.VIEWS):
            yield _Part(around, body if around else _without_title(body))
        else:
            claimed = _claimed(header.kind, body)
            yield _Part(header.kind, body[:claimed])
            yield _Part(around, body[claimed:])


def _claimed(kind: Kind, body: str) -> int:
    """The number of characters that a dropped header claims of the text below it."""
    rule = _RULE.search(body)
    limit = rule.start() if rule else len(body)
    if kind is Kind.AFTER:
        return limit
    if kind is Kind.LINE:
        return min(limit, body.find("\n") % (len(body) + 1))
    start = len(body) - len(body.lstrip())
    for blank in _BLANK_LINE.finditer(body, start):
        # A paragraph that begins in lower case goes on with the sentence before it.
        if not body[blank.end() : blank.end() + 1].islower():
            limit = min(limit, blank.start())
            break
    return min(limit, _end_of_wrapped_line(body, start)) if kind is Kind.STUDY else limit


def _end_of_wrapped_line(body: str, start: int) -> int:
    """The end of the first line, and of those that go on with it."""
    begin, solid = start, start
    while True:
        end = body.find("\n", begin)
        end = len(body) if end < 0 else end
        if solid <= end:
            solid = _next_word(body, end)
        following = body[solid : solid + 1]
        if end == len(body) or not (end - begin >= _WRAPPED or following.islower() or following in "_(,"):
            return end
        begin = end + 1


def _next_word(text: str, begin: int) -> int:
    """The place of the first character at or after `begin` that is no white space; the end if there is none."""
    found = _SOLID.search(text, begin)
    return found.start() if found else len(text)


def _without_title(text: str) -> str:
    """Text without the lines at its begin that are no sentence: names of the report, the hospital or the views."""
    begin, upper = 0, text == text.upper()
    while begin <= len(text):
        end = text.find("\n", begin)
        end = len(text) if end < 0 else end
        if not _is_title(text[begin:end], upper):
            return text[begin:]
        begin = end + 1
    return ""


def _is_title(line: str, upper: bool) -> bool:
    words = line.strip(" \t*_#-=.:")
    if not any(character.isalpha() for character in words):
        return True
    if header_kind(words) in (Kind.TITLE, Kind.VIEWS, Kind.FINDINGS):
        return True
    if upper or ":" in words or line.rstrip()[-1] in ".!?" or _STATEMENT.search(words):
        return False
    letters = [word for word in words.split() if word[0].isalpha() and len(word) > 3]
    return len(words.split()) > 1 and all(word[0].isupper() for word in letters)
