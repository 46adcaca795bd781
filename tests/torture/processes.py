"""A training run of two processes, of which the second is killed or slowed."""

import os
import signal
import time
from enum import Enum

import psutil

from tests.torture.bench import Bench
from tests.torture.commands import RUN_FILES, Command
from tests.torture.faults.library import Fault, Mode, control
from tests.torture.inputs import TRAINING
from tests.torture.parts import Part
from tests.torture.power_cut import write_state

SLOW = 3.0  # seconds for which a slow process stands still


class Harm(Enum):
    """A process that stands still for ever is given up after minutes: tests/training/test_local_processes.py."""

    KILLED = "killed"
    SLOWED = "slowed"


COMMAND = Command(
    "train-processes",
    lambda inputs: f"train --data {inputs.prepared()} --out out --resume auto processes=2",
    TRAINING,
    RUN_FILES,
)


class ProcessesPart(Part):
    """Cases are numbered by the operation of the first process before which the second is harmed."""

    short = False

    def __init__(self, harm: Harm) -> None:
        self.harm, self.name = harm, f"{COMMAND.name}/{harm.value}"

    def total(self, bench: Bench) -> int:
        return bench.reference(COMMAND).operations

    def problems(self, bench: Bench, seed: int, number: int) -> list[str]:
        bench.reference(COMMAND)
        write_state(bench.work, {})
        fault = Fault(Mode.PAUSE, number)
        with control(bench.scratch / "control-first", bench.work, fault) as shared:
            first = bench.warm.start(COMMAND.line(bench.inputs), bench.work, shared.path)
            code = None
            while not shared.fired and code is None:
                code = first.wait(0.01)
            others = [] if code is not None else psutil.Process(first.pid).children(recursive=True)
            for other in others:
                other.send_signal(signal.SIGKILL if self.harm is Harm.KILLED else signal.SIGSTOP)
            if code is None:
                os.killpg(first.pid, signal.SIGCONT)
            if self.harm is Harm.SLOWED:
                time.sleep(SLOW)
                for other in others:
                    other.send_signal(signal.SIGCONT)
            if code is None:
                code = first.wait(bench.guard)
            if code is None:
                first.kill()
            outcome = first.outcome(code)
        _, alive = psutil.wait_procs(others, timeout=10)
        for other in alive:
            other.kill()
        found = bench.problems_of(outcome)
        if alive:
            found.append("a process of the run outlived it")
        if self.harm is Harm.SLOWED and outcome.code:
            found.append(f"a slow process ended the run with exit code {outcome.code}")
        return found or bench.problems_at_the_end(COMMAND)


def process_parts() -> list[Part]:
    return [ProcessesPart(harm) for harm in Harm]
