"""The parts of the suite: each has numbered cases, and tells what was lost in one of them."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence

from tests.torture.bench import Bench
from tests.torture.commands import COMMANDS, Command
from tests.torture.faults.library import FAULTS, Fault, Mode
from tests.torture.power_cut import MODELS, Disk, Model, read_state, write_state


class Part(ABC):
    """A kind of fault for a command.

    Attributes:
        name: it and a case's seed and number repeat the case.
        short: it is part of the short form.
    """

    name: str
    short: bool

    @abstractmethod
    def total(self, bench: Bench) -> int:
        """The cases of a seed are numbered from 1 to this number."""

    @abstractmethod
    def problems(self, bench: Bench, seed: int, number: int) -> list[str]:
        """Run a case. Returns what was lost; empty if nothing was."""


class FaultPart(Part):
    """A fault in a command, and the same command again. Cases of seeds above 0 have up to two more faults after it.

    kind: a Mode, or a model of a disk whose power is cut.
    """

    def __init__(self, command: Command, kind: Mode | Model) -> None:
        self.command, self.kind = command, kind
        self.name = f"{command.name}/{_word(kind)}"
        self.short = command.short

    def total(self, bench: Bench) -> int:
        reference = bench.reference(self.command)
        return reference.bytes if self.kind is Mode.BUDGET else reference.operations

    def problems(self, bench: Bench, seed: int, number: int) -> list[str]:
        rng = random.Random(f"{self.name}:{seed}:{number}")
        reference = bench.reference(self.command)
        write_state(bench.work, {})
        faults: list[tuple[Mode | Model, int]] = [(self.kind, number)]
        for _ in range(rng.randint(0, 2) if seed else 0):
            kind = rng.choice(KINDS)
            faults.append((kind, rng.randint(1, reference.bytes if kind is Mode.BUDGET else reference.operations)))
        for kind, at in faults:
            if isinstance(kind, Mode):
                fault = Fault(kind, at)
                outcome = bench.run(self.command, fault)
                found = bench.problems_of(outcome, fault)
                # A command that says that it is done has a whole result. What it could not remove, the next run does.
                if not found and outcome.code == 0:
                    lost = bench.problems_of_result(self.command)
                    if any(not each.startswith("left over") for each in lost):
                        return lost
                    break
            else:
                found = self._cut(bench, kind, at, rng)
            if found:
                return found
        return bench.problems_at_the_end(self.command)

    def _cut(self, bench: Bench, model: Model, at: int, rng: random.Random) -> list[str]:
        """Cut the power before an operation; the folder then holds what the disk may show."""
        state, found = read_state(bench.work), []
        trace = bench.reference(self.command).trace
        if state:
            fault = Fault(Mode.KILL, at)
            outcome, trace, _ = bench.traced(self.command, state, fault)
            found = bench.problems_of(outcome, fault)
        disk = Disk(str(bench.work), state).do(one for one in trace if one.number < at)
        write_state(bench.work, disk.after_cut(model, rng))
        return found


KINDS: Sequence[Mode | Model] = (*FAULTS, *MODELS)


def _word(kind: Mode | Model) -> str:
    return kind.name.lower().replace("_", "-") if isinstance(kind, Mode) else f"cut-{kind}"


def fault_parts() -> list[Part]:
    """Every kind of fault in every command."""
    return [FaultPart(command, kind) for command in COMMANDS for kind in KINDS]
