"""The contents of a study: findings with place and severity, and devices. The drawing and the report follow them."""

from dataclasses import dataclass

import numpy as np

from prior_fast.radiology.labels import FIVE_CLASSES

FINDINGS = (*FIVE_CLASSES, "Pneumothorax")
SEVERITIES = ("mild", "moderate", "severe")
DEVICES = ("pacemaker", "central line", "endotracheal tube", "enteric tube", "sternal wires")

# A block of 20 studies. Blocks are shuffled, so every prefix of the dataset, even a short one, has about these shares.
_BLOCK = (
    *(("single", finding) for finding in FIVE_CLASSES for _ in range(2)),
    *(("normal", "") for _ in range(3)),
    *(("several", "") for _ in range(5)),
    ("single", "Pneumothorax"),
    ("with pneumothorax", ""),
)
BLOCK_SIZE = len(_BLOCK)
_HEDGED_SHARE_OF_SINGLE = 0.08
_DEVICE_SHARE = 0.3


@dataclass(frozen=True)
class Finding:
    """One finding of a study.

    Attributes:
        name: one of `FINDINGS`.
        side: "left", "right" or "bilateral" (the patient's); "" for Cardiomegaly.
        severity: one of `SEVERITIES`.
        zone: "upper", "mid" or "lower" if the finding has one, else "".
        form: "linear" or "lobar" for Atelectasis, else "".
        hedged: drawn faintly, and reported as possible.
    """

    name: str
    side: str
    severity: str
    zone: str = ""
    form: str = ""
    hedged: bool = False

    @property
    def sides(self) -> tuple[str, ...]:
        return ("right", "left") if self.side in ("bilateral", "") else (self.side,)


@dataclass(frozen=True)
class StudyContents:
    """Everything that is drawn besides normal anatomy."""

    findings: tuple[Finding, ...] = ()
    devices: tuple[str, ...] = ()

    def finding(self, name: str) -> Finding | None:
        return next((finding for finding in self.findings if finding.name == name), None)


def stream(seed: int, *key: int) -> np.random.Generator:
    """The random generator of one purpose. It depends only on the seed and the key."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def plan_study(rng: np.random.Generator, block_rng: np.random.Generator, position: int) -> StudyContents:
    """The contents of the study at `position` (0..19) of its block.

    block_rng: the same for all 20 studies of a block; it shuffles the block's kinds.
    """
    kind, name = _BLOCK[block_rng.permutation(BLOCK_SIZE)[position]]
    if kind == "normal":
        names: list[str] = []
    elif kind == "single":
        names = [name]
    elif kind == "several":
        names = [str(n) for n in rng.choice(FIVE_CLASSES, size=rng.choice([2, 3], p=[0.7, 0.3]), replace=False)]
    else:
        names = [str(rng.choice(FIVE_CLASSES)), "Pneumothorax"]
    findings = _place(rng, sorted(names, key=FINDINGS.index))
    if len(findings) == 1 and rng.random() < _HEDGED_SHARE_OF_SINGLE:
        (only,) = findings
        findings = [Finding(only.name, only.side, "mild", only.zone, only.form, hedged=True)]
    devices: tuple[str, ...] = ()
    if rng.random() < _DEVICE_SHARE:
        devices = tuple(str(d) for d in rng.choice(DEVICES, size=rng.choice([1, 2], p=[0.7, 0.3]), replace=False))
    return StudyContents(tuple(findings), devices)


def _place(rng: np.random.Generator, names: list[str]) -> list[Finding]:
    """Sides, zones and severities such that no finding hides another."""
    # A pneumothorax hides other findings of its side, so they are placed on the other side.
    free_sides = ["left", "right"]
    pneumothorax_side = str(rng.choice(free_sides))
    if "Pneumothorax" in names:
        free_sides.remove(pneumothorax_side)
    severity = {name: str(rng.choice(SEVERITIES, p=[0.3, 0.4, 0.3])) for name in names}
    taken: set[tuple[str, str]] = set()
    if "Cardiomegaly" in names:
        taken.add(("left", "lower"))
    placed = []
    # Findings that need the most room come first.
    order = ("Pleural Effusion", "Atelectasis", "Consolidation")
    for name in sorted(names, key=lambda n: order.index(n) if n in order else len(order)):
        if name == "Pleural Effusion":
            placed.append(_place_effusion(rng, free_sides, severity[name], taken))
        elif name == "Consolidation":
            side, zone = _choose_zone(rng, free_sides, ("upper", "mid", "lower"), taken)
            placed.append(Finding(name, side, severity[name], zone))
        elif name == "Atelectasis":
            placed.append(_place_atelectasis(rng, free_sides, severity[name], taken))
        elif name == "Pneumothorax":
            placed.append(Finding(name, pneumothorax_side, severity[name]))
        else:
            placed.append(Finding(name, "bilateral" if name == "Edema" else "", severity[name]))
    return sorted(placed, key=lambda finding: FINDINGS.index(finding.name))


def _place_effusion(
    rng: np.random.Generator, free_sides: list[str], severity: str, taken: set[tuple[str, str]]
) -> Finding:
    """A large effusion fills a whole side, but not the left side if the heart's left border must be visible."""
    heart_matters = ("left", "lower") in taken
    if severity == "severe" and heart_matters:
        free_sides = [side for side in free_sides if side == "right"]
        severity = severity if free_sides else "moderate"
        free_sides = free_sides or ["left"]
    side = str(rng.choice(free_sides))
    if len(free_sides) == 2 and severity != "severe" and rng.random() < 0.35:
        side = "bilateral"
    zones = {"mild": ("lower",), "moderate": ("lower", "mid"), "severe": ("lower", "mid", "upper")}[severity]
    taken |= {(s, zone) for s in ("left", "right") if side in (s, "bilateral") for zone in zones}
    return Finding("Pleural Effusion", side, severity)


def _place_atelectasis(
    rng: np.random.Generator, free_sides: list[str], severity: str, taken: set[tuple[str, str]]
) -> Finding:
    """Severe atelectasis is the collapse of a lobe, mild is plate-like, moderate is either."""
    lobar = severity == "severe" or (severity == "moderate" and rng.random() < 0.4)
    if lobar:
        side, zone = _choose_zone(rng, free_sides, ("upper", "lower"), taken)
        return Finding("Atelectasis", side, severity, zone, "lobar")
    both_bases = len(free_sides) == 2 and not any(zone == "lower" for _, zone in taken)
    if both_bases and rng.random() < 0.4:
        taken |= {("left", "lower"), ("right", "lower")}
        return Finding("Atelectasis", "bilateral", severity, "lower", "linear")
    side, zone = _choose_zone(rng, free_sides, ("lower", "lower", "mid", "upper"), taken)
    return Finding("Atelectasis", side, severity, zone, "linear")


def _choose_zone(
    rng: np.random.Generator, sides: list[str], zones: tuple[str, ...], taken: set[tuple[str, str]]
) -> tuple[str, str]:
    """Choose a free side and zone and mark them as taken. At most three findings never take all of them."""
    free = [(side, zone) for side in sides for zone in zones if (side, zone) not in taken]
    side, zone = free[int(rng.integers(len(free)))]
    taken.add((side, zone))
    return side, zone
