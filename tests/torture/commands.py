"""The commands that write files: their words, and what of their results may differ between two runs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.torture.inputs import TRAINING, Inputs
from tests.torture.power_cut import State

# Returns what must be equal of a file's content; None leaves the file out.
Reduce = Callable[[bytes], Any]


def without(*keys: str) -> Reduce:
    """A file of JSON, or of lines of JSON, without these entries at any depth."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(inner) for key, inner in value.items() if key not in keys}
        return [strip(inner) for inner in value] if isinstance(value, list) else value

    def reduce(content: bytes) -> Any:
        try:
            return strip(json.loads(content))
        except ValueError:
            return [strip(json.loads(line)) for line in content.splitlines()]

    return reduce


def left_out(content: bytes) -> None:
    """For files that hold times alone, or names that do."""


# A seal is a digest of the whole file, so it differs where the times do.
TIMES = without("seconds", "images_per_second_per_core", "seal")
SPEED = ("pairs_per_second", "tokens_per_second", "tflops_per_second", "mfu", "data_wait", "peak_memory_gib", "speed")


@dataclass(frozen=True)
class Command:
    """A command that writes into the folder where it is started.

    Attributes:
        words: its words, from the inputs.
        volatile: by a pattern of paths, what must be equal of a file that differs between runs.
        refuses: what a command says, with exit code 2, whose result is there already.
        short: it is part of the short form of the suite.
    """

    name: str
    words: Callable[[Inputs], str]
    more: tuple[str, ...] = ()
    volatile: Mapping[str, Reduce] = field(default_factory=dict)
    refuses: str = ""
    short: bool = True

    def line(self, inputs: Inputs) -> list[str]:
        return [*self.words(inputs).split(), *self.more]

    def reduced(self, state: State) -> dict[str, Any]:
        """What must be equal of a result, by its paths."""
        found: dict[str, Any] = {}
        for path, content in state.items():
            reduce = next((each for pattern, each in self.volatile.items() if fnmatch(path, pattern)), None)
            if reduce is left_out:
                continue
            try:
                found[path] = content if reduce is None or not isinstance(content, bytes) else reduce(content)
            except ValueError:
                found[path] = content
        return found


RUN_FILES: dict[str, Reduce] = {
    "*/log.jsonl": without(*SPEED, "seconds"),
    "*/metrics.json": without(*SPEED, "seconds"),
    "*/tensorboard/*": left_out,
}
RESULTS: dict[str, Reduce] = dict.fromkeys(("*metrics.json", "*result.json", "*report.json", "*sweep.json"), TIMES)
NOT_EMPTY = "is not empty"

COMMANDS = (
    Command(
        "phantom",
        lambda inputs: "phantom --out out --studies 3 --size 64 --seed 1 --workers 1",
        volatile=RESULTS,
        refuses=NOT_EMPTY,
    ),
    Command(
        "phantom-rsna",
        lambda inputs: "phantom --layout rsna --out out --studies 3 --size 64 --seed 1 --workers 1",
        volatile=RESULTS,
        refuses=NOT_EMPTY,
        short=False,
    ),
    Command(
        "prepare-mimic",
        lambda inputs: f"prepare mimic --images {inputs.mimic()} --out out --workers 1",
        volatile=RESULTS,
    ),
    Command(
        "prepare-table",
        lambda inputs: (
            f"prepare table --table {inputs.reports_table()} --images {inputs.mimic()} --out out --workers 1"
        ),
        volatile=RESULTS,
        short=False,
    ),
    Command(
        "prepare-labels",
        lambda inputs: (
            f"prepare labels --table {inputs.labels_table()} --images {inputs.mimic()} --out out --workers 1"
        ),
        volatile=RESULTS,
        refuses=NOT_EMPTY,
    ),
    Command(
        "prepare-rsna",
        lambda inputs: f"prepare rsna --images {inputs.rsna()} --out out --workers 1",
        volatile=RESULTS,
        refuses=NOT_EMPTY,
        short=False,
    ),
    Command(
        "prepare-siim",
        lambda inputs: f"prepare siim --images {inputs.siim()} --out out --workers 1",
        volatile=RESULTS,
        refuses=NOT_EMPTY,
        short=False,
    ),
    Command(
        "train",
        lambda inputs: f"train --data {inputs.prepared()} --out out --resume auto processes=1",
        TRAINING,
        RUN_FILES,
    ),
    Command(
        "zero-shot",
        lambda inputs: f"evaluate zero-shot --checkpoint {inputs.run()} --data {inputs.prepared()} --out out",
        ("device=cpu", "per_class=2"),
        RESULTS,
    ),
    Command(
        "retrieval",
        lambda inputs: f"evaluate retrieval --checkpoint {inputs.run()} --data {inputs.prepared()} --out out",
        ("device=cpu", "by=study"),
        RESULTS,
        short=False,
    ),
    Command(
        "classification",
        lambda inputs: f"evaluate classification --checkpoint {inputs.run()} --data {inputs.labelled()} --out out",
        ("device=cpu", "epochs=2", "batch_size=4", "splits=prior-0"),
        RESULTS,
    ),
    Command(
        "pictures",
        lambda inputs: f"pictures --checkpoint {inputs.run()} --data {inputs.prepared()} --out out",
        ("device=cpu", "count=1"),
        RESULTS,
        short=False,
    ),
    Command(
        "weights-convert",
        lambda inputs: f"weights convert {inputs.released()} --out out --tokenizer {inputs.prepared() / 'tokenizer'}",
        volatile=RESULTS,
        refuses="it exists",
        short=False,
    ),
    Command(
        "weights-export",
        lambda inputs: f"weights export {inputs.run()} --out out",
        volatile=RESULTS,
        refuses="it exists",
    ),
    Command(
        "weights-inspect",
        lambda inputs: f"weights inspect {inputs.run()} --out out.json",
        volatile=RESULTS,
        short=False,
    ),
)


def command(name: str) -> Command:
    return next(one for one in COMMANDS if one.name == name)


def leftovers(state: State) -> list[str]:
    """Names that only an unfinished write has."""
    names = [Path(path).name for path in state]
    return sorted({name for name in names if name.startswith(".") or name.endswith((".partial", ".old", ".tmp"))})
