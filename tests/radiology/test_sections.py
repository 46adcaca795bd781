import json

import pytest

from prior_fast.radiology.sections import canonical_name, findings_and_impression, split_sections


def test_recorded_reports(golden):
    cases = json.loads((golden / "section_split.json").read_text(encoding="utf-8"))
    assert len(cases) == 60
    for case in cases:
        sections = split_sections(case["text"])
        assert [section.name for section in sections] == case["section_names"], case["id"]
        assert [section.start for section in sections] == case["section_start"], case["id"]
        assert findings_and_impression(case["text"], case["study"]) == case["result"], case["id"]


def test_a_section_starts_where_it_says():
    report = "REPORT\n INDICATION:  cough\n FINDINGS: Clear lungs.\n IMPRESSION: Normal.\n"
    for section in split_sections(report):
        assert report[section.start : section.start + len(section.text)] == section.text


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("CONCLUSION", "impression"),
        ("IMPRESSOIN", "impression"),
        ("FINDINGS AND IMPRESSION", "impression"),
        ("FINDINGS/IMPRESSION", "impression"),
        ("FINDINGS ON THE LEFT", "findings"),
        ("  findings ", "findings"),
        ("PA AND LATERAL CHEST", "findings"),
        ("REASON FOR EXAM", "indication"),
        ("PFI", "history"),
        ("RELEVANT HISTORY", "history"),
        ("DOSE", "dose"),
    ],
)
def test_headers(header, name):
    assert canonical_name(header) == name


def test_a_study_on_the_list_is_left_out():
    report = "\n FINDINGS: Clear.\n IMPRESSION: Normal.\n"
    assert findings_and_impression(report, "s50525523") is None
    assert findings_and_impression(report, "s50913680") is None
    assert findings_and_impression(report, "s50525524") == {"impression": "Normal.\n", "findings": "Clear."}
