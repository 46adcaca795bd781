"""What a sentence of a report says, by its words: the findings it names, whether it states or denies them, the side.

These are keyword rules, not a labeler: sentences that describe a finding without its name ("The costophrenic angle is
obscured") name none here.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from prior_fast.radiology.labels import FIVE_CLASSES

FINDINGS = (*FIVE_CLASSES, "Pneumothorax")
STATED, POSSIBLE, DENIED = "stated", "possible", "denied"
PRESENCES = (STATED, POSSIBLE, DENIED)  # a sentence that names a finding twice counts as the first of these
LEFT, RIGHT, BILATERAL, NO_SIDE = "left", "right", "bilateral", "none"
SEVERAL, OTHER = "several findings", "other"

_HEART = r"\b(?:heart|cardiac|cardiomediastinal)\b"
_NORMAL = r"\b(?:normal|unremarkable)\b"
_NAMES = {
    "Atelectasis": r"atelecta",
    "Cardiomegaly": rf"cardiomegal|{_HEART}[^.;,]*?(?:enlarge|{_NORMAL})|(?:enlarge|{_NORMAL})[^.;,]*?{_HEART}",
    "Consolidation": r"consolidat",
    "Edema": r"o?edema",
    "Pleural Effusion": r"effusion",
    "Pneumothorax": r"pneumothora",
}
_NAMED = {name: re.compile(pattern) for name, pattern in _NAMES.items()}
# A denial before one of these does not reach beyond it.
_CLAUSE = re.compile(r"[;:]|\b(?:but|however|although|though|except|aside from|apart from)\b")
# "No change in the effusion" does not deny it.
_UNCHANGED = re.compile(r"\b(?:no|not|without)\b(?: \w+){0,2} (?:change|increase|decrease)\w*")
_DENIED_BEFORE = re.compile(r"\b(?:no|not|nor|without|never|free of|negative for|absence of|resol\w+ of)\b")
_DENIED_AFTER = re.compile(
    r"^[^,;]*?\b(?:(?:not|no longer) (?:\w+ )?(?:seen|present|identified|visuali[sz]ed|demonstrated|noted|detected"
    r"|observed|evident|appreciated)|absent|resolved|ruled out|(?:is|are|been) excluded)\b"
)
_OPEN = re.compile(r"\b(?:cannot|can't|not|difficult to)(?: be)? exclude")
_POSSIBLE_BEFORE = re.compile(
    r"\b(?:possibl[ey]|may|might|could|borderline|question\w*|suspect\w*|suspici\w*|likely|probabl[ey]|suggest\w*)\b"
)
_POSSIBLE_AFTER = re.compile(
    r"^[^,;]*?\b(?:(?:is|are|was|were) (?:\w+ )?(?:suspected|possible|questioned|likely|probable)|may be present)\b"
)
_LEFT = re.compile(r"\bleft\b")
_RIGHT = re.compile(r"\bright\b")
_BOTH = re.compile(r"\b(?:bilateral\w*|bibasilar|bibasal|both)\b")

# A longer sentence is read in pieces, so that the time is linear in its length. No report has so long a sentence.
_LONGEST = 1000


@dataclass(frozen=True)
class Statement:
    """What a sentence says.

    Attributes:
        findings: each named finding with one of `PRESENCES`, in the order of `FINDINGS`; empty if none is named.
        side: "left", "right", "bilateral" or "none", of the whole sentence.
    """

    findings: tuple[tuple[str, str], ...]
    side: str

    @property
    def named(self) -> str:
        """The names of the findings, joined by commas; "other" if there is none."""
        return ", ".join(name for name, _ in self.findings) or OTHER

    @property
    def presence(self) -> str:
        """The presence of the findings, joined by commas where they differ; "none" if no finding is named."""
        return ", ".join(sorted({presence for _, presence in self.findings})) or "none"

    @property
    def stated(self) -> frozenset[str]:
        """The findings that are stated, neither denied nor only possible."""
        return frozenset(name for name, presence in self.findings if presence == STATED)

    def asserts(self, finding: str) -> bool:
        """Whether the finding is stated or possible."""
        return any(name == finding and presence != DENIED for name, presence in self.findings)


def read_statement(sentence: str) -> Statement:
    """What a sentence says. A sentence of more than 1000 characters says what its pieces say, cut between words."""
    text = " ".join(sentence.lower().split())
    pieces = list(_pieces(text))
    presences = {name: {presence for piece in pieces for presence in _presences(piece, name)} for name in FINDINGS}
    found = [(name, min(said, key=PRESENCES.index)) for name, said in presences.items() if said]
    return Statement(tuple(found), side_of(text))


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of up to `_LONGEST` characters, which end with whole words if there are any."""
    begin = 0
    while len(text) - begin > _LONGEST:
        end = text.rfind(" ", begin, begin + _LONGEST) + 1 or begin + _LONGEST
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _presences(text: str, name: str) -> Iterator[str]:
    """The presence of the finding each time that the lower-case `text` names it, up to the first that counts most."""
    for match in _NAMED[name].finditer(text):
        presence = _presence(text, match)
        yield presence
        if presence == PRESENCES[0]:
            return


def side_of(sentence: str) -> str:
    """The side that a sentence names: both sides together count as "bilateral"."""
    text = sentence.lower()
    left, right = _LEFT.search(text), _RIGHT.search(text)
    if _BOTH.search(text) or (left and right):
        return BILATERAL
    return LEFT if left else RIGHT if right else NO_SIDE


def named_finding(sentence: str) -> str:
    """The finding that a sentence names, stated or denied; "several findings" or "other"."""
    named = [name for name, _ in read_statement(sentence).findings]
    return named[0] if len(named) == 1 else (SEVERAL if named else OTHER)


def stated_findings(sentences: Iterable[str]) -> frozenset[str]:
    """The findings that at least one of the sentences states."""
    return frozenset[str]().union(*(read_statement(sentence).stated for sentence in sentences))


def swap_sides(sentence: str) -> str:
    """The sentence with left and right exchanged, with capitals kept."""
    words = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return re.sub(r"\b(?:[Ll]eft|[Rr]ight)\b", lambda match: words[match[0]], sentence)


def sides_of_finding(sentences: Sequence[str], finding: str) -> set[str]:
    """The sides, without "none", of the sentences that assert the finding."""
    said = [read_statement(sentence) for sentence in sentences]
    return {statement.side for statement in said if statement.asserts(finding)} - {NO_SIDE}


def _presence(text: str, match: re.Match[str]) -> str:
    """The presence of the finding that `match` names in the lower-case `text`."""
    begin = max((end.end() for end in _CLAUSE.finditer(text, 0, match.start())), default=0)
    before, after = _UNCHANGED.sub("", text[begin : match.end()]), text[match.end() :]
    if _OPEN.search(before) or _OPEN.search(after.partition(",")[0]):
        return POSSIBLE
    # "normal" denies only what it is said of: "The heart is normal in size".
    if _DENIED_BEFORE.search(before) or _DENIED_AFTER.search(after) or re.search(_NORMAL, match[0]):
        return DENIED
    return POSSIBLE if _POSSIBLE_BEFORE.search(before) or _POSSIBLE_AFTER.search(after) else STATED
