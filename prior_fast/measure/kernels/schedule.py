"""The order in which calls are measured, and which are left out under a time limit."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from prior_fast.bench.common.case import Public
from prior_fast.measure.kernels.contest import COMPILED, Contest, Entry, entries, prepare
from prior_fast.measure.kernels.file import Sheet
from prior_fast.measure.kernels.rows import kind_of

# Passes over all calls that are measured together. The ranges of two sets of seven draws from one distribution are
# disjoint with probability 1/1,716.
PASSES = 7
ROOM = 5.0  # last seconds of a limit, reserved for calls under way, the tables and the plots
COMPILING = 0.5  # share of a limit after which nothing is compiled: compiling is slow, and more shapes come after it

Group = list[Entry]
NOT_BEGUN, NOT_COMPILED, NOT_ALL_PASSES = "not begun", "not compiled", "not timed in all passes"


@dataclass(frozen=True)
class Limit:
    """Seconds within which a run should end (None: no limit), and the time when it began."""

    seconds: float | None = None
    began: float = field(default_factory=lambda: perf_counter())

    @property
    def used(self) -> float:
        return perf_counter() - self.began

    @property
    def left(self) -> float:
        """Seconds during which a call may still begin."""
        return math.inf if self.seconds is None else self.seconds - ROOM - self.used

    def allows(self, entry: Entry) -> bool:
        if entry.with_compile and self.seconds is not None and self.used > COMPILING * self.seconds:
            return False
        return self.left > 0


def groups(cases: Sequence[tuple[str, Public]], compiled: Sequence[str], all_compiled: bool) -> Iterator[Group]:
    """Groups of an op's entries that are measured together, in order.

    First PRIOR's own shapes, which are the first of each kind; then the same shapes with torch.compile; then the other
    shapes. Compiling is slow, so it comes after the most important calls.

    Args:
        cases: pairs of a dtype's name and a case.
        compiled: dtypes in which PRIOR's own shapes are compiled.
        all_compiled: whether other shapes are compiled too.
    """
    first: dict[str, str] = {}
    for _, case in cases:
        first.setdefault(kind_of(case.op, case.shape), case.shape)
    own = [(dtype, case) for dtype, case in cases if case.shape in first.values()]
    yield from (entries(case, dtype) for dtype, case in own)
    yield from _compiled(own, compiled)
    rest = [(dtype, case) for dtype, case in cases if case.shape not in first.values()]
    yield from (entries(case, dtype) for dtype, case in rest)
    if all_compiled:
        yield from _compiled(rest, compiled)


def _compiled(cases: Sequence[tuple[str, Public]], dtypes: Sequence[str]) -> Iterator[Group]:
    for dtype, case in cases:
        if case.compiles and dtype in dtypes:
            yield from ([entry] for entry in entries(case, dtype, with_compile=True))


def measure(
    ops: Sequence[str],
    groups: Iterator[Group],
    seconds: float,
    limit: Limit,
    sheet: Sheet,
    advance: Callable[[str], None],
) -> None:
    """Check and time the groups, which hold all calls of `ops`; the file is written after each pass over a group.

    seconds: for each competitor at each call, over all passes.
    """
    cut: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for group in groups:
        contests: list[Contest] = []
        for entry in group:
            if limit.allows(entry):
                advance(f"{entry.name}: checks")
                contests.append(prepare(entry, sheet))
            else:
                cut[entry.case.op, NOT_COMPILED if entry.with_compile else NOT_BEGUN].append(entry)
        for number in range(PASSES):
            if number and limit.left <= 0:
                for contest in contests:
                    cut[contest.entry.case.op, NOT_ALL_PASSES].append(contest.entry)
                break
            for contest in contests:
                advance(f"pass {number + 1} of {PASSES}: {contest.entry.name}")
                contest.time(seconds, PASSES)
                sheet.add(contest)
            sheet.save()
    for (op, reason), left in cut.items():
        who = COMPILED if reason == NOT_COMPILED else f"{len(left)} calls"
        shapes = "; ".join(dict.fromkeys(entry.case.shape for entry in left))
        sheet.leave_out(op, who, f"{reason} within --limit {limit.seconds:g}: {shapes}")
    for op in ops:
        if not any(op == cut_op for cut_op, _ in cut):
            sheet.finish(op)
    sheet.save()
