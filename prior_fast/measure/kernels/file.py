"""kernels.json during a run: the rows measured so far, and the rows of other ops from earlier runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prior_fast.errors import UsageError
from prior_fast.files import write_json
from prior_fast.measure.compare_reports import read_report
from prior_fast.measure.kernels.contest import Contest
from prior_fast.measure.kernels.rows import call_of
from prior_fast.measure.roofline import Ceilings, better, limits

NAME = "kernels.json"


class Sheet:
    """A result file that grows during a run.

    `complete` is false while a requested call is not measured in all passes; `unfinished` names the ops of such calls.
    A file without these two keys is complete.

    Args:
        out: the folder; None writes no file.
        ops: the ops that this run measures. Their rows in `out` are replaced as soon as there are new ones; rows of
            other ops stay.
        known: all ops, in the order of the rows.
        machine, options: must equal those of the rows that stay.

    Raises:
        UsageError: rows that would stay have another machine or other options, or the existing file is not a result
            file.
    """

    def __init__(
        self,
        out: Path | None,
        ops: Sequence[str],
        known: Sequence[str],
        machine: dict[str, Any],
        options: dict[str, Any],
        ceilings: Ceilings,
    ) -> None:
        self.path = None if out is None else out / NAME
        self.ops, self.known, self.machine, self.options, self.ceilings = ops, known, machine, options, ceilings
        self.unfinished = list(ops)
        self._calls: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        self._left_out: list[dict[str, Any]] = []
        self._problems: list[str] = []
        self._measured = False
        if self.path is not None and self.path.exists():
            self._keep(read_report(self.path))

    def better(self, ceilings: Ceilings) -> None:
        """Take the machine's ceilings from a second measurement where they are higher."""
        self.ceilings = better(self.ceilings, ceilings)

    def add(self, contest: Contest) -> None:
        """Replace the rows of a contest's call by those measured so far, unless the old rows have more passes."""
        rows = list(contest.rows())
        if rows:
            there = self._calls.get(call_of(rows[0]), [])
            if len(rows[0]["passes"]) >= max((len(row["passes"]) for row in there), default=0):
                self._calls[call_of(rows[0])] = rows
            self._measured = True

    def leave_out(self, op: str, who: str, reason: str) -> None:
        """Record once why a competitor or a call of an op is not timed."""
        for entry in self._left_out:
            if (entry["who"], entry["reason"]) == (who, reason):
                entry["ops"] += [op] if op not in entry["ops"] else []
                return
        self._left_out.append({"who": who, "reason": reason, "ops": [op]})

    def problem(self, words: str) -> None:
        """Record once that a call computes a wrong result; `words` begin with its op."""
        if words not in self._problems:
            self._problems.append(words)

    def report(self) -> dict[str, Any]:
        """The content of kernels.json: the ops of this run and of earlier runs."""
        rows = [row for rows in self._calls.values() for row in rows]
        rows.sort(key=lambda row: self.known.index(row["op"]) if row["op"] in self.known else len(self.known))
        return {
            "machine": self.machine,
            "options": self.options,
            "complete": not self.unfinished,
            "unfinished": list(self.unfinished),
            "rows": [row | limits(row, self.ceilings) for row in rows],
            "left_out": self._left_out,
            "problems": self._problems,
            "ceilings": vars(self.ceilings),
        }

    def finish(self, op: str) -> None:
        """Mark an op as completely measured."""
        self.unfinished.remove(op)

    def save(self) -> None:
        """Write the file atomically. It is not replaced before this run has a row or has finished an op."""
        if self.path is not None and (self._measured or any(op not in self.unfinished for op in self.ops)):
            write_json(self.path, self.report())

    def _keep(self, report: dict[str, Any]) -> None:
        """Take over the other ops of an earlier result file."""
        rows = [row for row in report["rows"] if row["op"] not in self.ops]
        if not rows:
            return
        for what, here in (("machine", self.machine), ("options", self.options)):
            there = report[what]
            for fact in there.keys() | here.keys():
                if there.get(fact) != here.get(fact):
                    raise UsageError(
                        f"{self.path} has {rows[0]['op']} with another {fact}: {there.get(fact)!r}, here it is "
                        f"{here.get(fact)!r}; choose another --out"
                    )
        for row in rows:
            self._calls.setdefault(call_of(row), []).append(row)
        for entry in report["left_out"]:
            for op in entry["ops"]:
                if op not in self.ops:
                    self.leave_out(op, entry["who"], entry["reason"])
        self._problems += [words for words in report["problems"] if words.split()[0] not in self.ops]
        self.unfinished += [op for op in report.get("unfinished", ()) if op not in self.ops]
        self.better(Ceilings(**report["ceilings"]))
