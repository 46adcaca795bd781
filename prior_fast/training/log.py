"""The log of a run, `log.jsonl` for programs and TensorBoard for people, and the check for non-finite losses."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from prior_fast.errors import RunError
from prior_fast.files import atomic_path
from prior_fast.training.checkpoint import Position
from prior_fast.training.signals import uninterrupted


class RunLog:
    """A run's `log.jsonl` and `tensorboard/`. Entries after `position` are dropped, so each step is logged once."""

    def __init__(self, folder: Path, position: Position) -> None:
        self.path = folder / "log.jsonl"
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["total_steps"] <= position.total_steps]
            with atomic_path(self.path) as partial:
                partial.write_text("".join(kept), encoding="utf-8")
        self.file = self.path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=position.total_steps + 1)

    def write(self, kind: str, position: Position, values: dict[str, float]) -> None:
        """Write a line of `values`; kind is "train" or "validate"."""
        line = {"kind": kind, "stage": position.stage, "step": position.step, "total_steps": position.total_steps}
        # If Ctrl-C interrupts the transfer of a value to TensorBoard's thread, `close` waits two minutes for it.
        with uninterrupted():
            self.file.write(json.dumps({**line, **values}) + "\n")
            self.file.flush()
            for name, value in values.items():
                self.board.add_scalar(f"stage{position.stage}/{kind}/{name}", value, position.total_steps)

    def close(self) -> None:
        self.file.close()
        self.board.close()


class LossWindow:
    """The loss terms of the steps since the last `close`, kept on the device and read back all at once."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.names: list[str] = []

    def add(self, terms: dict[str, Tensor]) -> None:
        """Store a step's terms without waiting for the device."""
        self.names = list(terms)
        self.rows.append(torch.stack([term.detach().float() for term in terms.values()]))

    def close(self, position: Position) -> dict[str, float]:
        """The mean of each term since the last call; `position` is the one after the last step.

        Raises:
            RunError: a term was not finite; the message names the stage, the step and the term.
        """
        values = torch.stack(self.rows).tolist()
        first = position.step - len(values) + 1
        for offset, row in enumerate(values):
            for name, value in zip(self.names, row):
                if not math.isfinite(value):
                    raise RunError(
                        f"stage {position.stage}, step {first + offset}: the loss term {name} is {value}; lower "
                        "learning_rate or clip_norm and go on from the last checkpoint"
                    )
        means = {name: sum(column) / len(values) for name, column in zip(self.names, zip(*values))}
        self.rows = []
        return means
