"""From the text of a report to its sentences: the sections are found by one of three rules, then split."""

from prior_fast.radiology.sections import findings_and_impression
from prior_fast.radiology.sentences import split_sentences
from prior_fast.radiology.tolerant_sections import tolerant_sections

MIMIC, TOLERANT, WHOLE = SECTION_RULES = ("mimic", "tolerant", "whole")


def report_sections(text: str, rules: str, study: str = "") -> list[str] | None:
    """The texts of a report that are to be split into sentences, findings before impression.

    Args:
        text: the whole report.
        rules: "mimic", the published rules of MIMIC-CXR (`radiology.sections`); "tolerant", for reports from anywhere
            (`radiology.tolerant_sections`); "whole", which takes the whole text.
        study: the study's id with its letter, such as "s50414267", for "mimic".

    Returns:
        One text or more; None when the rules find neither findings nor impression, nor text in their place.

    Raises:
        ValueError: there are no such rules.
    """
    if rules == WHOLE:
        return [text]
    if rules == TOLERANT:
        return tolerant_sections(text)
    if rules != MIMIC:
        raise ValueError(f"rules is {rules!r}, wanted {' or '.join(SECTION_RULES)}")
    found = findings_and_impression(text, study)
    return None if found is None else [found[name] for name in ("findings", "impression") if found[name]]


def report_sentences(text: str, rules: str, study: str = "") -> list[str] | None:
    """The sentences of a report, findings before impression; None where `report_sections` is None.

    The list is empty if the sections have no sentence.
    """
    sections = report_sections(text, rules, study)
    return None if sections is None else [sentence for section in sections for sentence in split_sentences(section)]
