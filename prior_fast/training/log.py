"""The log of a run, `log.jsonl` for programs and TensorBoard for people."""

import json
import os
import threading
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from prior_fast.files import write_text
from prior_fast.files.space import explained
from prior_fast.training.checkpoint import Position
from prior_fast.training.finite import check_finite
from prior_fast.training.signals import uninterrupted


class RunLog:
    """A run's `log.jsonl` and `tensorboard/`. Entries after `position` are dropped, so each step is logged once.

    Lines that can't be read are dropped too: a full disk or a power cut leaves a part of a line.
    """

    def __init__(self, folder: Path, position: Position) -> None:
        self.path = folder / "log.jsonl"
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            write_text(self.path, "".join(line for line in lines if _belongs(line, position)))
        self._excepthook = threading.excepthook
        threading.excepthook = self._in_thread
        with explained(self.path):
            self.file = self.path.open("a", encoding="utf-8")
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=position.total_steps + 1)

    def write(self, kind: str, position: Position, values: dict[str, float]) -> None:
        """Write a line of `values`; kind is "train" or "validate".

        Raises:
            NotFinite: a value is not finite.
            RunError: the disk is full.
        """
        part = " on the validation studies" if kind == "validate" else ""
        check_finite(values, f"stage {position.stage}, after step {position.step}", position.total_steps, part)
        line = {"kind": kind, "stage": position.stage, "step": position.step, "total_steps": position.total_steps}
        # If Ctrl-C interrupts the transfer of a value to TensorBoard's thread, `close` waits two minutes for it.
        with uninterrupted(), explained(self.path):
            self.file.write(json.dumps({**line, **values}) + "\n")
            self.file.flush()
            for name, value in values.items():
                self.board.add_scalar(f"stage{position.stage}/{kind}/{name}", value, position.total_steps)

    def flush(self) -> None:
        """Wait until the lines are on the disk: a checkpoint's steps are then in the log."""
        with explained(self.path):
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the files. A second call does nothing.

        Raises:
            RunError: the disk is full.
        """
        try:
            with explained(self.path):
                self.file.close()
                self.board.close()
        finally:
            threading.excepthook = self._excepthook

    def _in_thread(self, failed: threading.ExceptHookArgs) -> None:
        # TensorBoard's thread raises a failed write, such as on a full disk, and `add_scalar` raises it again.
        if not isinstance(failed.exc_value, OSError):
            self._excepthook(failed)


def _belongs(line: str, position: Position) -> bool:
    try:
        return line.endswith("\n") and json.loads(line)["total_steps"] <= position.total_steps
    except (ValueError, KeyError, TypeError):
        return False


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
            NotFinite: a term was not finite; the message names the stage, the step and the term.
        """
        values = self.check(position)
        self.rows = []
        return {name: sum(column) / len(values) for name, column in zip(self.names, zip(*values))}

    def check(self, position: Position) -> list[list[float]]:
        """The terms of each step since the last `close`.

        Raises:
            RunError: as `close`.
        """
        values = torch.stack(self.rows).tolist() if self.rows else []
        first = position.step - len(values) + 1
        for offset, row in enumerate(values):
            before = position.total_steps - len(values) + offset
            check_finite(dict(zip(self.names, row)), f"stage {position.stage}, step {first + offset}", before)
        return values
