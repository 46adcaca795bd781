"""A report with sentences on drawn findings, absent findings and other topics, and the CheXpert labels of its text."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from prior_fast.phantom import phrases, wording
from prior_fast.phantom.contents import FINDINGS, Finding, StudyContents

_MOST_SENTENCES = 20
_FEWEST_SENTENCES = 3
_MOST_IN_LONE_IMPRESSION = 8


@dataclass(frozen=True)
class Statement:
    """A sentence and the labels that it implies.

    Attributes:
        rank: orders the sentences of a section.
        topic: sentences on the same topic are kept together.
    """

    text: str
    labels: dict[str, float] = field(default_factory=dict)
    rank: int = 1
    topic: str = ""


@dataclass(frozen=True)
class Report:
    """A generated report.

    Attributes:
        text: the whole file.
        findings, impression: the sentences of each section.
        labels: the CheXpert labels, by column.
    """

    text: str
    findings: tuple[str, ...]
    impression: tuple[str, ...]
    labels: dict[str, float]


def write_report(rng: np.random.Generator, contents: StudyContents, view: str) -> Report:
    """A report of 3 to 20 sentences in its findings and impression together.

    view: a key of `phrases.VIEWS`, the views of the study.
    """
    author = _Author(rng, contents, view)
    findings, impression = author.compose()
    labels = _labels(contents, [*findings, *impression])
    numbered = len(impression) > 1 and rng.random() < 0.35
    body = [("FINDINGS", " ".join(s.text for s in findings))] if findings else []
    if impression:
        lines = [f"{n}. {s.text}" if numbered else s.text for n, s in enumerate(impression, 1)]
        body.append(("IMPRESSION", ("\n" if numbered and rng.random() < 0.6 else " ").join(lines)))
    text = _layout([*author.preface(), *body], inline=rng.random() < 0.15)
    return Report(text, tuple(s.text for s in findings), tuple(s.text for s in impression), labels)


class _Author:
    """Chooses sentences and records them, so that none is repeated."""

    def __init__(self, rng: np.random.Generator, contents: StudyContents, view: str):
        self.rng, self.contents, self.view = rng, contents, view
        self.prior = bool(rng.random() < 0.6)
        self.said: set[str] = set()

    def compose(self) -> tuple[list[Statement], list[Statement]]:
        rng = self.rng
        layout = str(rng.choice(["both", "findings", "impression"], p=[0.80, 0.09, 0.11]))
        count = int(np.clip(round(rng.gamma(4.5, 1.5) + 1.8), _FEWEST_SENTENCES, _MOST_SENTENCES))
        if rng.random() < 0.04:
            count = int(rng.integers(14, _MOST_SENTENCES + 1))
        if layout == "impression":
            count = min(count, _MOST_IN_LONE_IMPRESSION)
        mentions = [self._say(f, wording.STATEMENTS) for f in self.contents.findings]
        mentions += [self._device(device) for device in self.contents.devices]
        if layout != "both":
            fillers = self._fillers(impression=layout == "impression")
            section = self._fill(mentions, fillers, count)
            return (section, []) if layout == "findings" else ([], section)
        summary = self._summary()
        for_impression = max(1, min(len(summary) + int(rng.integers(0, 3)), count // 3))
        impression = self._fill(summary[:for_impression], self._fillers(impression=True), for_impression)
        findings = self._fill(mentions, self._fillers(impression=False), max(1, count - len(impression)))
        return findings, impression

    def preface(self) -> list[tuple[str, str]]:
        """The sections before the findings."""
        rng = self.rng
        person = str(rng.choice(["man", "woman"]))
        sections = [("EXAMINATION", phrases.EXAMINATIONS[self.view])] if rng.random() < 0.85 else []
        sections.append(("INDICATION", self._pick(phrases.INDICATIONS).format(person=person)))
        if rng.random() < 0.5:
            sections.append(("TECHNIQUE", self._pick(phrases.TECHNIQUES[self.view])))
        if rng.random() < 0.75:
            sections.append(("COMPARISON", self._pick(("___.", "Chest radiograph ___.")) if self.prior else "None."))
        return sections

    def _fill(self, chosen: list[Statement], fillers: list[Statement], count: int) -> list[Statement]:
        chosen = list(chosen)
        denied: set[str] = set()
        for statement in fillers:
            if len(chosen) >= count:
                break
            news = set(statement.labels) - denied
            if statement.text in self.said or (statement.labels and not news and self.rng.random() < 0.8):
                continue
            self.said.add(statement.text)
            denied |= set(statement.labels)
            chosen.append(statement)
        topics = [statement.topic or statement.text for statement in chosen]
        place = dict(zip(topics, self.rng.permutation(len(topics))))
        return [s for s, t in sorted(zip(chosen, topics), key=lambda pair: (pair[0].rank, place[pair[1]]))]

    def _fillers(self, impression: bool) -> list[Statement]:
        """Sentences that may be added, in order of preference; they suffice for the longest report."""
        names = {finding.name for finding in self.contents.findings}
        pool: list[tuple[float, Statement]] = []

        def offer(statement: Statement, weight: float) -> None:
            pool.append((float(self.rng.exponential(1 / weight)), statement))

        for absence in phrases.ABSENCES:
            if names.isdisjoint(absence.absent) and (absence.impression or not impression):
                offer(Statement(absence.text, dict.fromkeys(absence.denies, 0.0)), 1.0)
        for text in phrases.NOTICES if names else ():
            offer(Statement(text, rank=4), 0.35)
        for text in phrases.ADVICE if names else ():
            offer(Statement(text, rank=3), 0.5 if impression else 0.1)
        if not impression:
            for finding in self.contents.findings:
                for text in self._options(finding, wording.DETAILS):
                    offer(Statement(self._fill_in(text, finding), self._positive(finding), topic=finding.name), 2.0)
            for anatomy in phrases.ANATOMY:
                offer(Statement(anatomy.text, dict.fromkeys(anatomy.denies, 0.0), rank=2), 0.5)
            for text in self._clear_sides():
                offer(Statement(text), 1.5)
        remarks = phrases.WITH_PRIOR if self.prior else phrases.WITHOUT_PRIOR
        for text in (*remarks, *phrases.VIEWS[self.view]):
            offer(Statement(text, rank=0), 0.1 if impression else 0.5)
        for text in phrases.REMARKS:
            offer(Statement(text, rank=0), 0.02 if impression else 0.12)
        return [statement for _, statement in sorted(pool, key=lambda item: item[0])]

    def _summary(self) -> list[Statement]:
        """The first sentences of an impression: the findings, or that there are none."""
        if not self.contents.findings:
            options = phrases.NORMAL_IMPRESSIONS if not self.contents.devices else phrases.NORMAL_IMPRESSIONS[:-1]
            return [Statement(self._pick(options), rank=0)]
        return [self._say(f, wording.STATEMENTS if f.hedged else wording.IMPRESSIONS) for f in self.contents.findings]

    def _say(self, finding: Finding, source: dict[str, wording.Templates]) -> Statement:
        text = self._fill_in(self._pick(self._options(finding, source)), finding)
        self.said.add(text)
        labels = self._positive(finding)
        if "pneumonia" in text:
            labels["Pneumonia"] = -1.0
        return Statement(text, labels, topic=finding.name)

    def _device(self, device: str) -> Statement:
        text = self._pick(wording.DEVICES[device])
        self.said.add(text)
        return Statement(text, {"Support Devices": 1.0}, rank=2)

    def _options(self, finding: Finding, source: dict[str, wording.Templates]) -> list[str]:
        traits = {finding.severity, finding.zone, finding.form, "bilateral" if len(finding.sides) == 2 else "one-sided"}
        traits |= {"hedged"} if finding.hedged else set()
        options: list[str] = []
        for key, texts in source[finding.name].items():
            needed = set(key.split())
            if needed <= traits and ("hedged" in needed) == finding.hedged:
                options += texts
        return options

    def _fill_in(self, template: str, finding: Finding) -> str:
        fields = {name: self._pick(words) for name, words in wording.SYNONYMS.items()}
        words = wording.SEVERITY.get(finding.name, wording.SEVERITY[""])
        fields["severity"] = self._pick(words[finding.severity])
        fields["side"] = finding.side
        if finding.zone:
            fields["place"] = self._pick(wording.ZONES[finding.side, finding.zone])
        text = template.replace("{a}", "a(n)").format(**fields)
        text = re.sub(r"a\(n\) (?=([aeiou])?)", lambda m: "an " if m[1] else "a ", text)
        return text[0].upper() + text[1:]

    def _clear_sides(self) -> list[str]:
        inside = [f for f in self.contents.findings if f.name != "Cardiomegaly"]
        clear = {"right", "left"} - {side for finding in inside for side in finding.sides}
        return [self._pick(phrases.CLEAR_SIDE).format(side=side) for side in sorted(clear)] if len(clear) == 1 else []

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    @staticmethod
    def _positive(finding: Finding) -> dict[str, float]:
        return {finding.name: -1.0 if finding.hedged else 1.0}


def _labels(contents: StudyContents, statements: Sequence[Statement]) -> dict[str, float]:
    """A positive mention overrides an uncertain one, which overrides a negation, as in the CheXpert labeler."""
    labels: dict[str, float] = {}
    for statement in statements:
        for name, value in statement.labels.items():
            strongest = max(labels.get(name, 0.0), value, key=lambda v: (v == 1.0, v == -1.0))
            labels[name] = strongest
    if any(labels.get(name) == 1.0 for name in ("Atelectasis", "Consolidation", "Edema")):
        labels["Lung Opacity"] = 1.0
    if not contents.findings:
        labels["No Finding"] = 1.0
    assert all(labels.get(name, 0.0) == 0.0 for name in FINDINGS if contents.finding(name) is None)
    return labels


def _layout(sections: Sequence[tuple[str, str]], inline: bool) -> str:
    """The file's text: a title, headers one space in, lines wrapped at 78 columns, `\\n \\n` between sections."""
    parts = []
    for header, text in sections:
        wrapped = "\n".join(_wrap(line) for line in text.splitlines())
        if header in ("FINDINGS", "IMPRESSION") and not inline:
            parts.append(f" {header}: \n \n{wrapped}")
        else:
            parts.append(_wrap(f"{header}:  {text}"))
    return " " * 33 + "FINAL REPORT\n" + "\n \n".join(parts) + "\n"


def _wrap(text: str) -> str:
    return textwrap.fill(text, 78, initial_indent=" ", subsequent_indent=" ", break_on_hyphens=False)
