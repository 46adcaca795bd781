"""Compares two result files of a benchmark row by row: what became faster or slower beyond both spreads."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prior_fast.errors import RunError, UsageError
from prior_fast.measure.kernels.rows import pairs, times_ours

FACTS = ("processor", "GPU", "GPU 0", "CPU cores", "threads")


@dataclass(frozen=True)
class Row:
    """One measured row of a result file: milliseconds and their spread; `ours` is false for a competitor's row."""

    name: str
    milliseconds: float
    spread: tuple[float, float]
    ours: bool = True


@dataclass(frozen=True)
class Change:
    """A row that both files have; `kind` is "slower", "faster" or "same"."""

    name: str
    before: Row
    after: Row
    kind: str

    @property
    def ratio(self) -> float:
        """Milliseconds after, divided by milliseconds before."""
        return self.after.milliseconds / self.before.milliseconds


def read_report(path: Path) -> dict[str, Any]:
    """The content of a benchmark's result file.

    Raises:
        UsageError: the file does not exist, is not JSON, or has no rows.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; give two result files, such as kernels.json")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is no JSON file ({error})") from None
    if not isinstance(report, dict) or not isinstance(report.get("rows", report.get("rungs")), list):
        raise UsageError(f"{path} has no rows: it is no kernels.json, train.json or loader.json")
    return report


def read_rows(report: dict[str, Any]) -> dict[str, Row]:
    """The measured rows of a result file by name; rows without a time are skipped."""
    rows = {}
    for entry in report.get("rows", report.get("rungs")) or []:
        milliseconds = _milliseconds(entry)
        if milliseconds is None:
            continue
        name = " ".join(str(entry[key]) for key in ("key", "name", "source") if key in entry)
        low, high = entry.get("spread") or entry.get("quartiles") or (milliseconds, milliseconds)
        rows[name] = Row(name, milliseconds, (low, high), entry.get("ours", True))
    return rows


def read_ratios(report: dict[str, Any]) -> dict[str, Row]:
    """From kernels.json, by row name: each competitor's time divided by ours, stored as `milliseconds`."""
    if not all("passes" in entry for entry in report.get("rows") or [{}]):
        return {}
    found = {}
    for ours, other in pairs(report):
        times = times_ours(other, ours)
        found[other["name"]] = Row(other["name"], times.median, times.spread, ours=False)
    return found


def _milliseconds(entry: dict[str, Any]) -> float | None:
    """Milliseconds of a call or a step; of a pair if the file has rates. None for a row that was not measured."""
    value, rate = entry.get("milliseconds"), entry.get("pairs_per_second")
    if value is None and rate:
        value = 1e3 / rate
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) and value > 0 else None


def changes(before: dict[str, Row], after: dict[str, Row], over: float) -> list[Change]:
    """The change of each row that both files have, the largest slowdown first.

    A row changed if the two spreads do not overlap and the larger median exceeds the other by more than the share
    `over`.
    """
    found = []
    for name in before.keys() & after.keys():
        a, b = before[name], after[name]
        kind = "same"
        if b.spread[0] > a.spread[1] and b.milliseconds > a.milliseconds * (1 + over):
            kind = "slower"
        elif a.spread[0] > b.spread[1] and a.milliseconds > b.milliseconds * (1 + over):
            kind = "faster"
        found.append(Change(name, a, b, kind))
    return sorted(found, key=lambda change: (-change.ratio, change.name))


def compare_files(before: Path, after: Path, over: float) -> int:
    """Print what changed; returns 1 if a row of ours became slower, else 0.

    Raises:
        UsageError: a file is not a result file, or the two have no row in common.
        RunError: a file has no measured row.
    """
    from prior_fast.console import stdout
    from prior_fast.tables import plain_table

    if not 0 <= over < math.inf:
        raise UsageError(f"--over {over}: must be 0 or more")
    reports = [read_report(path) for path in (before, after)]
    old, new = (read_rows(report) for report in reports)
    for path, rows in ((before, old), (after, new)):
        if not rows:
            raise RunError(f"{path} has no measured row")
    found = changes(old, new, over)
    if not found:
        raise UsageError(f"{before} and {after} have no row in common: compare two result files of one kind")
    for fact, a, b in _other_machine(reports):
        stdout.print(f"not the same machine: {fact} is {a!r} before and {b!r} after")
    for words in _other_speed(reports):
        stdout.print(words)
    moved = [change for change in found if change.kind != "same"]
    if moved:
        cells = [(c.name, *_times(c.before), *_times(c.after), f"{c.ratio:.2f}", _word(c)) for c in moved]
        header = ("row", "ms before", "spread", "ms after", "spread", "after / before", "")
        stdout.print(f"changed by more than {over:g} and beyond both spreads\n")
        stdout.print(*plain_table(header, cells, left=(0, 6)), "", sep="\n")
    counts = {kind: sum(change.kind == kind for change in found) for kind in ("slower", "faster", "same")}
    alone = len(old) + len(new) - 2 * len(found)
    stdout.print(
        f"{counts['slower']} slower, {counts['faster']} faster, {counts['same']} the same, {alone} in one file only"
    )
    ratios = changes(read_ratios(reports[0]), read_ratios(reports[1]), over)
    if ratios:
        away = sum(change.kind != "same" for change in ratios)
        stdout.print(f"times of competitors over ours: {away} changed, {len(ratios) - away} the same")
    return int(any(change.kind == "slower" and change.after.ours for change in found))


def _times(row: Row) -> tuple[str, str]:
    return f"{row.milliseconds:.4g}", "{:.4g} to {:.4g}".format(*row.spread)


def _word(change: Change) -> str:
    return change.kind if change.after.ours else f"{change.kind} (a competitor)"


def _other_machine(reports: Sequence[dict[str, Any]]) -> list[tuple[str, Any, Any]]:
    """Facts of the machine that both files have and that differ."""
    a, b = (report.get("machine") or {} for report in reports)
    return [(fact, a[fact], b[fact]) for fact in FACTS if fact in a and fact in b and a[fact] != b[fact]]


def _other_speed(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A message for each ceiling of the machine that differs by more than a tenth: it may have changed all rows."""
    a, b = (report.get("ceilings") or {} for report in reports)
    measured = [("large copies", a.get("bandwidth"), b.get("bandwidth"))]
    measured += [
        (f"products in {name}", rate, b.get("rates", {}).get(name)) for name, rate in a.get("rates", {}).items()
    ]
    for what, before, after in measured:
        if before and after and not 0.9 < after / before < 1 / 0.9:
            yield f"the machine itself changed: {what} ran {after / before:.2f} times as fast in the second file"
