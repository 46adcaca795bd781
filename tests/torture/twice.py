"""Two of a command at once on one output: one does the work, the other says who does, and the result is whole.

The first process is stopped before an operation. The second then runs to its end, or waits for the first, which goes
on. So each case is one exact order of the two.
"""

import os
import re
import signal

from tests.torture.bench import Bench, last_line
from tests.torture.commands import COMMANDS, Command
from tests.torture.faults.library import Fault, Mode, control
from tests.torture.parts import Part
from tests.torture.power_cut import write_state
from tests.torture.warm import Outcome

PATIENCE = 10.0  # seconds after which the second process is waiting for the first


class TwicePart(Part):
    """Cases are numbered by the operation before which the first process stops."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.name, self.short = f"{command.name}/twice", command.short

    def total(self, bench: Bench) -> int:
        return bench.reference(self.command).operations

    def problems(self, bench: Bench, seed: int, number: int) -> list[str]:
        bench.reference(self.command)
        write_state(bench.work, {})
        words = self.command.line(bench.inputs)
        with control(bench.scratch / "control-first", bench.work, Fault(Mode.PAUSE, number)) as shared:
            first = bench.warm.start(words, bench.work, shared.path)
            code = None
            while not shared.fired and code is None:
                code = first.wait(0.01)
            second = bench.warm.start(words, bench.work)
            second_code = second.wait(PATIENCE)
            if code is None:
                os.killpg(first.pid, signal.SIGCONT)
                code = first.wait(bench.guard)
            if second_code is None:
                second_code = second.wait(bench.guard)
            for run, ended in ((first, code), (second, second_code)):
                if ended is None:
                    run.kill()
            ends = [first.outcome(code), second.outcome(second_code)]
        pids = [first.pid, second.pid]
        found = [problem for one in ends for problem in bench.problems_of(one)]
        found += [self._refusal(one, other) for one, other in zip(ends, reversed(pids)) if one.code]
        if all(one.code for one in ends):
            found.append("neither did the work")
        found = [problem for problem in found if problem]
        return found or bench.problems_of_result(self.command) or bench.problems_at_the_end(self.command)

    def _refusal(self, outcome: Outcome, other: int) -> str:
        """What is wrong with the message of a process that did not do the work."""
        line = last_line(outcome.stderr)
        named = re.search(rf"\b{other}\b", line) or (self.command.refuses and self.command.refuses in line)
        return "" if named else f"a message that does not name the other process, {other}: {line}"


def twice_parts() -> list[Part]:
    return [TwicePart(command) for command in COMMANDS]
