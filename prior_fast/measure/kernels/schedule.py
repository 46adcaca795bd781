"""In what order calls are measured, and what is left out where the time is limited."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from prior_fast.bench.common.case import Public
from prior_fast.measure.kernels.contest import COMPILED, Contest, Entry, entries, prepare
from prior_fast.measure.kernels.file import Sheet
from prior_fast.measure.kernels.rows import kind_of

# Over all calls that are measured together. The ranges of seven draws and of seven more of one distribution are
# disjoint once in 1,716 times.
PASSES = 7
ROOM = 5.0  # last seconds of a limit, for what was begun before, the tables and the plots
COMPILING = 0.5  # share of a limit in which something may be compiled: that takes long, and more shapes come after it

Group = list[Entry]
NOT_BEGUN, NOT_COMPILED, NOT_ALL_PASSES = "not begun", "not compiled", "not timed in all passes"


@dataclass(frozen=True)
class Limit:
    """Seconds within which a run should be at its end, None for as long as it takes, and when it began."""

    seconds: float | None = None
    began: float = field(default_factory=lambda: perf_counter())

    @property
    def used(self) -> float:
        return perf_counter() - self.began

    @property
    def left(self) -> float:
        """Seconds in which something may be begun."""
        return math.inf if self.seconds is None else self.seconds - ROOM - self.used

    def allows(self, entry: Entry) -> bool:
        if entry.with_compile and self.seconds is not None and self.used > COMPILING * self.seconds:
            return False
        return self.left > 0


def groups(cases: Sequence[tuple[str, Public]], compiled: Sequence[str], all_compiled: bool) -> Iterator[Group]:
    """What of an op is measured together, in order: PRIOR's own shapes, which are the first of each kind; these once
    more, with torch.compile; the other shapes. Compiling takes so long that it comes after what is wanted most.

    Args:
        cases: with the names of their dtypes.
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
    """Check and time the groups, which are all that there is of `ops`; after each pass over a group it is written.

    seconds: for each competitor at each call, all passes together.
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
