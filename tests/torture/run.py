"""The torture suite: python -m tests.torture.run [--seconds N] [--seed S] [--only PART:SEED:NUMBER] [PART ...]

Breaks every command at random places until the time is over, and prints what was lost with the words that repeat it.
PART is the beginning of a part's name, such as `train` or `train/kill`.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.bench import Bench
from tests.torture.faults.library import compiler
from tests.torture.flips import flip_parts
from tests.torture.parts import Part, fault_parts
from tests.torture.processes import process_parts
from tests.torture.twice import twice_parts


@dataclass
class Report:
    """How many cases of each part were tried, and what was lost: the words that repeat a case, and its problems."""

    tried: Counter[str] = field(default_factory=Counter)
    lost: dict[str, list[str]] = field(default_factory=dict)
    lost_of: Counter[str] = field(default_factory=Counter)

    def add(self, part: Part, seed: int, number: int, problems: list[str]) -> None:
        self.tried[part.name] += 1
        if problems:
            self.lost[f"{part.name}:{seed}:{number}"] = problems
            self.lost_of[part.name] += 1

    def merge(self, other: "Report") -> None:
        self.tried += other.tried
        self.lost |= other.lost
        self.lost_of += other.lost_of

    def table(self) -> str:
        """The table, and a line for each case in which something was lost."""
        lines = [f"{'part':<32} {'tried':>7} {'survived':>9} {'lost':>6}"]
        for name, tried in self.tried.items():
            lost = self.lost_of[name]
            lines.append(f"{name:<32} {tried:>7} {tried - lost:>9} {lost:>6}")
        tried, lost = self.tried.total(), self.lost_of.total()
        lines.append(f"{'all':<32} {tried:>7} {tried - lost:>9} {lost:>6}")
        lines += [f"lost: --only {case}: {'; '.join(problems)}" for case, problems in self.lost.items()]
        return "\n".join(lines)


def all_parts() -> list[Part]:
    return [*fault_parts(), *flip_parts(), *twice_parts(), *process_parts()]


def named(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """The parts whose names begin with one of `names`; all if there are none."""
    return [part for part in parts if not names or any(f"{part.name}/".startswith(f"{name}/") for name in names)]


def cases(part: Part, bench: Bench, seed: int) -> Iterator[tuple[int, int]]:
    """Seeds and numbers without an end: every number once in a random order, then again with the next seed."""
    while True:
        numbers = range(1, part.total(bench) + 1)
        yield from ((seed, number) for number in random.Random(f"{part.name}:{seed}").sample(numbers, len(numbers)))
        seed += 1


def torture(bench: Bench, parts: Sequence[Part], seconds: float, seed: int = 0, rounds: int = 0) -> Report:
    """Try cases of all parts in turn.

    Args:
        seconds: begin no case after this time.
        rounds: cases of each part, at most; 0: no limit.
    """
    report, until, done = Report(), time.monotonic() + seconds, 0
    left = {part.name: (part, cases(part, bench, seed)) for part in parts}
    while left and (not rounds or done < rounds):
        for part, drawn in list(left.values()):
            if time.monotonic() > until:
                return report
            case = (seed, 0)
            try:
                case = next(drawn)
                report.add(part, *case, part.problems(bench, *case))
            except AssertionError as error:  # of the undisturbed run
                report.add(part, *case, [str(error)])
                del left[part.name]
        done += 1
    return report


def main(words: Sequence[str] | None = None) -> int:
    """Returns 1 if something was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.run", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--seconds", type=float, default=600.0, help="default: 600")
    parser.add_argument("--seed", type=int, default=0, help="where the seeds of the cases begin (default: 0)")
    parser.add_argument("--only", metavar="PART:SEED:NUMBER", help="repeat one case")
    parser.add_argument("--scratch", type=Path, help="folder to work in, kept (default: a new one, removed)")
    args = parser.parse_args(words)
    if compiler() is None:
        print("the suite needs Linux and a C compiler (c++, g++ or clang++ on the PATH, or CXX)", file=sys.stderr)
        return 2
    parts = named(all_parts(), args.parts)
    with tempfile.TemporaryDirectory() as temporary, Bench(args.scratch or Path(temporary)) as bench:
        if args.only:
            name, seed, number = args.only.rsplit(":", 2)
            report = Report()
            (part,) = (part for part in parts if part.name == name)
            report.add(part, int(seed), int(number), part.problems(bench, int(seed), int(number)))
        else:
            report = torture(bench, parts, args.seconds, args.seed)
    print(report.table())
    return 1 if report.lost else 0


if __name__ == "__main__":
    sys.exit(main())
