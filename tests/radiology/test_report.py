import textwrap
from collections import Counter
from pathlib import Path

import pytest

from prior_fast.radiology.report import SECTION_RULES, report_sections, report_sentences
from prior_fast.radiology.sections import EXCLUDED_STUDIES
from prior_fast.radiology.text_files import decode_text

MIMIC = "FINAL REPORT\n HISTORY: Cough.\n \n IMPRESSION: Clear. \n \n FINDINGS: Heart normal. No effusion.\n"


def test_the_rules_have_these_names() -> None:
    assert SECTION_RULES == ("mimic", "tolerant", "whole")
    with pytest.raises(ValueError, match="rules is 'strict', wanted mimic or tolerant or whole"):
        report_sections("FINDINGS: clear", "strict")


def test_findings_come_before_the_impression() -> None:
    assert report_sections(MIMIC, "mimic") == ["Heart normal. No effusion.\n", "Clear. \n "]
    for rules in ("mimic", "tolerant"):
        assert report_sentences(MIMIC, rules) == ["Heart normal.", "No effusion.", "Clear."], rules
    assert report_sections(MIMIC, "whole") == [MIMIC]
    assert report_sentences(MIMIC, "whole")[0] == "FINAL REPORT HISTORY: Cough."


def test_only_the_rules_of_mimic_leave_listed_studies_out() -> None:
    study = min(EXCLUDED_STUDIES)
    assert report_sections(MIMIC, "mimic", study) is None and report_sentences(MIMIC, "mimic", study) is None
    assert report_sentences(MIMIC, "tolerant", study) is not None


def test_a_report_without_sections_differs_from_one_without_sentences() -> None:
    assert report_sentences("\n INDICATION: cough\n", "mimic") is None
    assert report_sentences("\n IMPRESSION: ___.\n", "mimic") == []
    assert report_sentences("", "whole") == [] and report_sentences("", "tolerant") == []
    assert report_sentences("INDICATION: cough", "tolerant") is None


@pytest.mark.parametrize("bundle", ["real_cxr", "real_cxr_broken"])
def test_the_tolerant_rules_keep_what_the_rules_of_mimic_keep(bundle: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(bundle)
    reports = sorted(folder.glob("files/*/*/*.txt"))
    assert reports
    for path in reports:
        text = decode_text(path.read_bytes())[0]
        kept, wanted = (Counter(report_sentences(text, rules) or ()) for rules in ("tolerant", "mimic"))
        assert not wanted - kept, path


def test_the_tolerant_rules_find_findings_without_a_header_in_real_reports(real_cxr: Path) -> None:
    more = {}
    for path in sorted(real_cxr.glob("files/*/*/*.txt")):
        text = decode_text(path.read_bytes())[0]
        kept, mimic = (Counter(report_sentences(text, rules) or ()) for rules in ("tolerant", "mimic"))
        if kept - mimic:
            more[path.stem] = kept - mimic
    # The 8 reports of the bundle whose findings are a paragraph without a header; nothing else is taken in.
    assert len(more) == 8
    assert not any(word in " ".join(found) for found in more.values() for word in ("INDICATION", "year-old", "XRAY"))


@pytest.mark.parametrize("width", [20, 30, 50])
def test_wrapped_findings_of_real_reports_are_kept_whole(real_cxr: Path, width: int) -> None:
    """No line of running text passes for a header, wherever the lines are broken."""
    for path in sorted(real_cxr.glob("files/*/*/*.txt")):
        sentences = report_sentences(decode_text(path.read_bytes())[0], "mimic")
        if sentences:
            body = textwrap.fill(" ".join(sentences), width)
            assert report_sections(f"FINDINGS: {body}", "tolerant") == [body], path
