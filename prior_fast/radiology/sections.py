"""The sections of a MIMIC-CXR report, found by the published rules of the authors of MIMIC-CXR.

The rules are those of `section_parser.py` in the mimic-cxr repository of the MIT Laboratory for Computational
Physiology. Their quirks are kept, because published results depend on them. A header is one space, capitals and a colon
at the start of any line but the first. If several sections have the same name, the last one with text counts. A
paragraph without a header belongs to the previous section.
"""

import re
from typing import NamedTuple

_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
_BLANK_LINE = "\n \n"
_WANTED = ("impression", "findings")

# Canonical name -> the headers that stand for it, lower case, misspellings of the corpus included.
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "findings": (
        *("findings", "finding", "chest, two views", "reference findings"),
        *("findins", "findindgs", "findgings", "findngs", "findnings", "finidngs"),
    ),
    "impression": (
        *("impression", "conclusion", "findings and impression", "findings/impression", "findings/ impression"),
        *("impresson", "imprression", "imoression", "impressoin", "imprssion", "impresion", "imperssion"),
        # "ndication" is an error of the published table. It is kept so that the sections are the same.
        *("mpression", "impession", "ndication"),
    ),
    "comparison": (
        *("comparison", "comparisons", "comparison exam", "comparison film", "reference exam"),
        *("comparision", "comparsion", "comparrison", "comparisions"),
    ),
    "indication": ("indication", "reason for examination", "reason for exam", "clinical indication", "idication"),
    "history": ("history", "clinical history", "clinical information", "patient history", "pfi"),
    "examination": ("examination", "exam", "type of examination"),
    "recommendations": ("recommendations", "recommendation", "recommendation(s)"),
    "wet read": ("wet read", "wetread"),
}
_CANONICAL = {header: name for name, headers in _SYNONYMS.items() for header in headers}

# A header that contains one of these words takes its name; the first match counts.
_CONTAINED = ("impression", "findings", "history", "comparison", "addendum")

# Headers that name the views of the study ("PA AND LATERAL CHEST") precede the findings.
_VIEWS = re.compile(
    "|".join(
        (
            *("chest", "portable", "ribs", "bone window", "two views", "one view", "frontal view", "lateral view"),
            *("pa view", "ap view", "frontal and", "frontal upright", "frontal semi-upright"),
            *("pa and lat", "lateral and pa", "ap and lateral", "lateral and ap"),
        )
    )
)

# Studies for which the published tables override the sections by hand (by section name, by character positions, or
# because the report has no interpretation at all). The rules give a wrong section for them, so they are left out.
EXCLUDED_STUDIES = frozenset(
    f"s{number}"
    for number in (
        *(50913680, 59363654, 59279892, 59768032, 57936451, 50058765, 53356173, 53202765, 50808053, 51966317),
        *(50743547, 56451190, 59067458, 59215320, 55124749, 54365831, 59087630, 58157373, 56482935, 58375018),
        *(54654948, 55157853, 51491012),
        *(50525523, 57564132, 59982525, 53488209, 54875119, 50196495, 56579911, 52648681, 59889364, 53514462),
        *(59505494, 53182247, 51410602, 56412866, 54986978, 59003148, 57150433, 56760320, 59562049, 52674888),
        *(55258338, 59330497, 52119491),
        *(58235663, 50798377, 54168089, 53071062, 56724958, 54231141, 53607029, 52035334),
    )
)


class Section(NamedTuple):
    """A section: its canonical name, the position of its text in the report, and the text, verbatim."""

    name: str
    start: int
    text: str


def canonical_name(header: str) -> str:
    """The canonical name of a header's section; for an unknown header, the header itself in lower case."""
    header = header.lower().strip()
    if header in _CANONICAL:
        return _CANONICAL[header]
    for name in _CONTAINED:
        if name in header:
            return name
    return "findings" if _VIEWS.search(header) else header


def split_sections(report: str) -> list[Section]:
    """All sections of a report in their order, the text before the first header as "preamble".

    A report without any header is one section, "full report". If there are neither findings nor an impression, all but
    the first paragraph of the last section becomes "last_paragraph".
    """
    header = _HEADER.search(report)
    if header is None:
        sections = [Section("full report", 0, report)]
    else:
        sections = [Section("preamble", 0, report[: header.start(1)])]
        while header is not None:
            start = header.end()
            # The rest of the header's own line is never searched for the next header.
            following = _HEADER.search(report, max(report.find("\n", start), start))
            end = len(report) if following is None else following.start()
            sections.append(Section(canonical_name(header[1]), start, report[start:end]))
            header = following
    sections = [section for section in sections if section.name not in _WANTED or section.text.strip()]
    if not any(section.name in _WANTED for section in sections):
        first, blank_line, rest = sections[-1].text.partition(_BLANK_LINE)
        if blank_line:
            name, start, _ = sections[-1]
            sections[-1:] = [Section(name, start, first), Section("last_paragraph", start + len(first), rest)]
    return sections


def findings_and_impression(report: str, study: str) -> dict[str, str] | None:
    """The texts of the sections "findings" and "impression", verbatim; an absent one is an empty string.

    Args:
        report: the whole report.
        study: the study's id with its letter, such as "s50414267".

    Returns:
        None when the report has neither section or the study is one of `EXCLUDED_STUDIES`.
    """
    if study in EXCLUDED_STUDIES:
        return None
    found = {section.name: section.text for section in split_sections(report) if section.name in _WANTED}
    return {name: found.get(name, "") for name in _WANTED} if found else None
