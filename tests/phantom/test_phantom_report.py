"""The phantom's reports and labels, against what is drawn."""

import re
from collections import Counter

import pytest

from prior_fast.phantom.contents import FINDINGS, StudyContents, stream
from prior_fast.phantom.generate import contents_of
from prior_fast.phantom.mimic import place_studies
from prior_fast.phantom.report import Report, write_report
from prior_fast.radiology.labels import CHEXPERT_LABELS

NAMES = {
    "Atelectasis": r"atelecta|collapse|volume loss",
    "Cardiomegaly": r"cardiomegaly|enlarged|enlargement|cardiothoracic",
    "Consolidation": r"consolidation|bronchogram|pneumonia",
    "Edema": r"edema|septal|perihilar|engorged",
    "Pleural Effusion": r"effusion|fluid|costophrenic|meniscus",
    "Pneumothorax": r"pneumothora|pleural line|pleural space is lucent",
}
NEGATED = re.compile(r"\b(no|not|without|normal|sharp)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def studies() -> list[tuple[StudyContents, Report]]:
    views = ("AP", "PA", "PA AND LAT")
    plans = [contents_of(11, place) for place in place_studies(11, 1200)]
    return [(plan, write_report(stream(12, i), plan, views[i % 3])) for i, plan in enumerate(plans)]


def sentences(report: Report) -> tuple[str, ...]:
    return report.findings + report.impression


def test_sentences_span_3_to_20(studies: list[tuple[StudyContents, Report]]) -> None:
    counts = Counter(len(sentences(report)) for _, report in studies)
    assert set(counts) == set(range(3, 21))
    assert counts[3] < 0.05 * len(studies)


def test_labels_agree_with_what_is_drawn(studies: list[tuple[StudyContents, Report]]) -> None:
    values = Counter()
    for plan, report in studies:
        assert set(report.labels) <= set(CHEXPERT_LABELS)
        for name in FINDINGS:
            finding, value = plan.finding(name), report.labels.get(name)
            if finding is None:
                assert value in (None, 0.0), (name, report.text)
            else:
                assert value == (-1.0 if finding.hedged else 1.0), (name, report.text)
            values[value] += 1
        assert report.labels.get("No Finding") == (None if plan.findings else 1.0)
        assert report.labels.get("Support Devices") == (1.0 if plan.devices else None)
    assert min(values[value] for value in (1.0, 0.0, -1.0, None)) > 20


def test_absent_findings_are_only_named_to_be_denied(studies: list[tuple[StudyContents, Report]]) -> None:
    denials = 0
    for plan, report in studies:
        for name, words in NAMES.items():
            if plan.finding(name):
                continue
            for sentence in sentences(report):
                if re.search(words, sentence, re.IGNORECASE):
                    denials += 1
                    assert NEGATED.search(sentence), (name, sentence)
    assert denials > 1000


def test_a_denial_sets_the_label_to_zero(studies: list[tuple[StudyContents, Report]]) -> None:
    for _, report in studies:
        said = any(re.search(r"\bno\b.*pneumothorax", s, re.IGNORECASE) for s in sentences(report))
        assert (report.labels.get("Pneumothorax") == 0.0) == said, report.text


def test_drawn_findings_are_named_and_never_denied(studies: list[tuple[StudyContents, Report]]) -> None:
    for plan, report in studies:
        for finding in plan.findings:
            about = [s for s in sentences(report) if re.search(NAMES[finding.name], s, re.IGNORECASE)]
            assert about, (finding, report.text)
            hedges = r"possibl|may|suspected"
            assert any(re.search(hedges, s, re.IGNORECASE) for s in about) or not finding.hedged
            denied = [s for s in about if re.match(r"(no|there is no)\b", s, re.IGNORECASE)]
            assert not [s for s in denied if "markings" not in s], (finding, denied)


def test_sides_and_severities_are_those_drawn(studies: list[tuple[StudyContents, Report]]) -> None:
    degrees = {"mild": r"\b(mild|small|mildly)\b", "moderate": r"\bmoderate", "severe": r"\b(severe|large|marked)\b"}
    for plan, report in studies:
        for finding in plan.findings:
            main_word = NAMES[finding.name].split("|")[0]
            for sentence in sentences(report):
                if not re.search(main_word, sentence, re.IGNORECASE) or finding.name == "Cardiomegaly":
                    continue
                if finding.side == "right":
                    assert not re.search(r"\bleft|bilateral", sentence, re.IGNORECASE), sentence
                if finding.side == "left":
                    assert not re.search(r"\bright|bilateral", sentence, re.IGNORECASE), sentence
                others = [words for severity, words in degrees.items() if severity != finding.severity]
                assert not any(re.search(words, sentence, re.IGNORECASE) for words in others), sentence


def test_each_finding_is_often_stated_by_its_chexpert_name() -> None:
    for name in FINDINGS:
        pattern = re.compile(rf"{name}\b.* is observed", re.IGNORECASE)
        stated = [0, 0]
        for i, place in enumerate(place_studies(11, 1200)):
            plan = contents_of(11, place)
            finding = plan.finding(name)
            if finding and not finding.hedged:
                report = write_report(stream(12, i), plan, "AP")
                stated[0] += bool(pattern.search(" ".join(sentences(report))))
                stated[1] += 1
        assert stated[0] > 0.1 * stated[1], name


def test_text_has_the_layout_of_mimic(studies: list[tuple[StudyContents, Report]]) -> None:
    kinds = Counter()
    order = ("EXAMINATION", "INDICATION", "TECHNIQUE", "COMPARISON", "FINDINGS", "IMPRESSION")
    for _, report in studies:
        assert report.text.startswith(" " * 33 + "FINAL REPORT\n ")
        assert max(map(len, report.text.splitlines())) <= 79
        headers = re.findall(r"\n ([A-Z ()/,-]+):\s", report.text)
        assert headers == sorted(headers, key=order.index)
        assert len(headers) == len(set(headers)) and "INDICATION" in headers
        flat = " ".join(report.text.split())
        assert all(" ".join(s.split()) in flat for s in sentences(report))
        assert ("FINDINGS" in headers, "IMPRESSION" in headers) == (bool(report.findings), bool(report.impression))
        kinds[bool(report.findings), bool(report.impression)] += 1
    assert min(kinds[kind] for kind in ((True, True), (True, False), (False, True))) > 40


def test_reports_do_not_count_the_views(studies: list[tuple[StudyContents, Report]]) -> None:
    """A study may have one or two frontal images; its report does not depend on that."""
    said = [sentence for _, report in studies for sentence in sentences(report)]
    assert not [sentence for sentence in said if re.search(r"\b(single|one|two) .*(view|radiograph)", sentence, re.I)]


def test_sentences_that_are_hard_to_split_occur(studies: list[tuple[StudyContents, Report]]) -> None:
    text = "\n".join(report.text for _, report in studies)
    for hard in ("Dr. ___", "3:15 p.m.", " cm ", "1. ", "2. ", "___", "a.m."):
        assert hard in text


def test_wording_varies(studies: list[tuple[StudyContents, Report]]) -> None:
    distinct = {sentence for _, report in studies for sentence in sentences(report)}
    assert len(distinct) > 1000
    assert all(re.fullmatch(r"[A-Z].*[.]", sentence) and "{" not in sentence for sentence in distinct)
    assert not [sentence for sentence in distinct if re.search(r"\ba [aeiou]|\ban [^aeiou]|\(n\)", sentence)]
