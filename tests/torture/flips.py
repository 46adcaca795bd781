"""Damage in files: whoever reads a damaged dataset or checkpoint says which file is damaged, or is not affected."""

import random
from collections.abc import Callable
from pathlib import Path

from tests.torture.bench import Bench, differ, last_line
from tests.torture.commands import RESULTS, RUN_FILES, Command, Reduce, left_out
from tests.torture.inputs import TRAINING, Inputs
from tests.torture.parts import Part
from tests.torture.power_cut import State, read_state, write_state

BLOCK = 512
DATA = "data"  # the copy, in the folder where the command starts


def flip_bit(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def change_byte(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([(content[place] + rng.randrange(1, 256)) % 256]) + content[place + 1 :]


def zero_block(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(0, len(content), BLOCK)
    end = min(place + BLOCK, len(content))
    return content[:place] + bytes(end - place) + content[end:]


def cut_tail(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


DAMAGE: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip_bit, change_byte, zero_block, cut_tail)


class FlipPart(Part):
    """A command that reads a folder in which one file is damaged. Cases go through files and kinds of damage.

    Args:
        folder: what is copied to `data`.
    """

    def __init__(self, command: Command, folder: Callable[[Inputs], Path]) -> None:
        self.command, self.folder = command, folder
        self.name, self.short = f"{command.name}/damage", command.short
        self._whole: State = {}

    def total(self, bench: Bench) -> int:
        return len(self._files(bench)) * len(DAMAGE)

    def problems(self, bench: Bench, seed: int, number: int) -> list[str]:
        files = self._files(bench)
        kind, file = divmod(number - 1, len(files))
        name, rng = files[file], random.Random(f"{self.name}:{seed}:{number}")
        wanted = bench.reference(self.command, self._whole).result
        content = self._whole[name]
        assert isinstance(content, bytes)
        write_state(bench.work, {**self._whole, name: DAMAGE[kind](content, rng)})
        outcome = bench.run(self.command)
        what = f"{name}, {DAMAGE[kind].__name__}"
        if found := bench.problems_of(outcome):
            return [f"{what}: {problem}" for problem in found]
        if outcome.code:
            line = last_line(outcome.stderr)
            return [] if Path(name).name in line else [f"{what}: the message names another file: {line}"]
        result = self.command.reduced(read_state(bench.work))
        changed = [path for path in sorted({**wanted, **result}) if path != name and differ(path, wanted, result)]
        return [f"{what}: no error, but {', '.join(changed[:3])} differ"] if changed else []

    def _files(self, bench: Bench) -> list[str]:
        if not self._whole:
            read = read_state(self.folder(bench.inputs))
            self._whole = {DATA: None, **{f"{DATA}/{name}": content for name, content in read.items()}}
        return [name for name, content in self._whole.items() if isinstance(content, bytes) and content]


# The log of a run is for people; a damaged line of it stays as it is.
RESUMED: dict[str, Reduce] = {**RUN_FILES, "*/log.jsonl": left_out}


def flip_parts() -> list[Part]:
    """Who reads prepared datasets, labelled datasets and checkpoints."""
    on_cpu = ("device=cpu",)
    return [
        FlipPart(
            Command("train-damaged", lambda inputs: f"train --data {DATA} --out out processes=1", TRAINING, RUN_FILES),
            lambda inputs: inputs.prepared(),
        ),
        FlipPart(
            Command(
                "zero-shot-damaged",
                lambda inputs: f"evaluate zero-shot --checkpoint {inputs.run()} --data {DATA} --out out per_class=2",
                on_cpu,
                RESULTS,
            ),
            lambda inputs: inputs.prepared(),
        ),
        FlipPart(
            Command(
                "checkpoint-damaged",
                lambda inputs: f"evaluate zero-shot --checkpoint {DATA} --data {inputs.prepared()} --out out",
                (*on_cpu, "per_class=2"),
                RESULTS,
            ),
            lambda inputs: inputs.run(),
        ),
        FlipPart(
            Command(
                "resume-damaged",
                lambda inputs: f"train --data {inputs.prepared()} --out {DATA} --resume auto processes=1",
                TRAINING,
                RESUMED,
            ),
            lambda inputs: inputs.stopped_run(),
        ),
        FlipPart(
            Command(
                "classification-damaged",
                lambda inputs: f"evaluate classification --checkpoint {inputs.run()} --data {DATA} --out out",
                (*on_cpu, "epochs=1", "batch_size=4", "splits=prior-0"),
                RESULTS,
            ),
            lambda inputs: inputs.labelled(),
        ),
    ]
