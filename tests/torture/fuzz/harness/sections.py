"""Sections by both rules: they are pieces of the report, and the headers of the tolerant rules stand in order."""

from prior_fast.radiology.header_search import find_headers
from prior_fast.radiology.report import MIMIC, TOLERANT, report_sections
from prior_fast.radiology.sections import split_sections
from tests.torture.fuzz.harness.texts import text_of


def target(data: bytes) -> None:
    """Any text has sections or None."""
    text = text_of(data)
    end = 0
    for section in split_sections(text):
        assert section.start >= end
        # The place of the last paragraph is that of the blank line before it.
        start = section.start + (len("\n \n") if section.name == "last_paragraph" else 0)
        end = start + len(section.text)
        assert text.startswith(section.text, start) and end <= len(text)
    end = 0
    for header in find_headers(text):
        assert end <= header.start <= header.end <= len(text)
        end = header.end
    for rules in (MIMIC, TOLERANT):
        found = report_sections(text, rules, "s1")
        assert found is None or found
        for piece in found or ():
            assert len(piece) <= len(text) and set(piece) <= {*text, "\n"}
