"""Runs commands with faults in a folder, and compares what they leave with the result of an undisturbed run."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.torture.commands import Command, leftovers
from tests.torture.faults.library import Fault, Mode, build
from tests.torture.faults.trace import Operation, read_trace
from tests.torture.inputs import Inputs
from tests.torture.power_cut import Disk, State, read_state, write_state
from tests.torture.warm import GUARD, PRODUCT, Outcome, Warm

CODES = (0, 1, 2, 75, 130)  # done, failed, wrong use, stopped by a signal, interrupted
# A message names a path, an option or a setting; "Input/output error" names none.
NAMES = re.compile(r"(?<!Input)/|\bout\b|--\w|\w=")


@dataclass(frozen=True)
class Reference:
    """An undisturbed run in an empty folder.

    Attributes:
        result: what every other run must leave.
        trace: its operations.
        operations, bytes: their number, and the number of bytes written.
    """

    result: dict[str, Any]
    trace: list[Operation]
    operations: int
    bytes: int


class Bench:
    """A warm server, inputs and a folder to work in.

    Args:
        scratch: a folder for all of them; inputs of an earlier bench in the same folder are used again.
        main, preload: other than the product's, for tests of the bench.

    Attributes:
        guard: seconds after which a command hangs.
    """

    def __init__(self, scratch: Path, main: str = PRODUCT, **more: Any) -> None:
        self.scratch, self.work = scratch, scratch / "work"
        scratch.mkdir(parents=True, exist_ok=True)
        self.warm = Warm(build(scratch), scratch, main, **more)
        self.inputs = Inputs(scratch / "given", self.warm)
        self.guard = GUARD
        self._references: dict[str, Reference] = {}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.warm.__exit__(kind, error, trace)

    def reference(self, command: Command, before: State | None = None) -> Reference:
        """The undisturbed run of a command.

        before: the state of the folder; the folder is empty without it.

        Raises:
            AssertionError: it failed, a second run differs, or it changed files in a way that was not seen.
        """
        if command.name not in self._references:
            results = []
            for _ in range(2):
                outcome, trace, state = self.traced(command, before or {})
                assert outcome.code == 0, f"{command.name}: {last_line(outcome.stderr)}"
                results.append(command.reduced(state))
            names = sorted(name for name in {**results[0], **results[1]} if differ(name, *results))
            assert not names, f"{command.name}: two undisturbed runs differ in {names}"
            seen = Disk(str(self.work), before or {}).do(trace).whole()
            assert seen == state, f"{command.name}: operations on {sorted(seen.keys() ^ state.keys())} were not seen"
            assert not leftovers(state), f"{command.name}: an undisturbed run leaves {leftovers(state)}"
            self._references[command.name] = Reference(results[0], trace, outcome.operations, outcome.bytes)
        return self._references[command.name]

    def traced(
        self,
        command: Command,
        state: State,
        fault: Fault = Fault(),  # noqa: B008
    ) -> tuple[Outcome, list[Operation], State]:
        """Run a command on a state of the folder: how it ended, its operations, and the state that it left."""
        write_state(self.work, state)
        log = self.scratch / "log"
        outcome = self.run(command, fault, log)
        return outcome, read_trace(log), read_state(self.work)

    def run(self, command: Command, fault: Fault = Fault(), log: Path | None = None) -> Outcome:  # noqa: B008
        return self.warm.run(command.line(self.inputs), self.work, fault, log, self.guard)

    def problems_of(self, outcome: Outcome, fault: Fault = Fault()) -> list[str]:  # noqa: B008
        """What is wrong with the way in which a command ended."""
        if outcome.code is None:
            return [f"it did not end within {self.guard:.0f} s"]
        found = []
        killed = fault.mode in (Mode.KILL, Mode.TORN) and outcome.fired
        if outcome.code not in CODES and not (killed and outcome.code == -9):
            found.append(f"exit code {outcome.code}: {last_line(outcome.stderr)}")
        if "Traceback" in outcome.stderr:
            found.append(f"a traceback: {last_line(outcome.stderr)}")
        elif outcome.code in (1, 2):
            lines = outcome.stderr.strip().splitlines()
            said = [line for line in lines if line.startswith("prior-fast: ")]
            if len(said) != 1 or lines[-1:] != said:
                found.append(f"not one line that says why: {outcome.stderr[-300:]!r}")
            elif not NAMES.search(said[0]):
                found.append(f"a message that names no path and no setting: {said[0]}")
        return found

    def problems_of_result(self, command: Command) -> list[str]:
        """What is wrong with the files that a command has left."""
        state, wanted = read_state(self.work), self.reference(command).result
        found = [f"left over: {name}" for name in leftovers(state)]
        result = command.reduced(state)
        for name in sorted({**wanted, **result}):
            if differ(name, wanted, result) and not found:
                what = "is missing" if name not in result else "is new" if name not in wanted else "differs"
                found.append(f"{name} {what}")
        return found

    def problems_at_the_end(self, command: Command) -> list[str]:
        """Run a command once more, undisturbed, and compare its result."""
        outcome = self.run(command)
        found = self.problems_of(outcome)
        refused = command.refuses and outcome.code == 2 and command.refuses in outcome.stderr
        if outcome.code != 0 and not refused:
            found.append(f"the next run failed with exit code {outcome.code}: {last_line(outcome.stderr)}")
        return found or self.problems_of_result(command)


def differ(name: str, first: dict[str, Any], second: dict[str, Any]) -> bool:
    missing = object()
    return first.get(name, missing) != second.get(name, missing)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
