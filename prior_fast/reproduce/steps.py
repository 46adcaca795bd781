"""A step: one command of prior-fast, the folder that it fills, and the file that proves that it is finished."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: unique in a plan, such as "prior/classification-rsna-1".
        words: of the command, without `prior-fast`.
        out: the folder that the command fills.
        proof: the file in `out` that the command writes last.
        needs: names of the steps whose results it reads.
        processes: how many processes share the work (`train` alone).
    """

    name: str
    words: tuple[str, ...]
    out: Path
    proof: str
    needs: tuple[str, ...] = ()
    processes: int = 1

    def finished(self) -> bool:
        """Whether the results are complete."""
        path = self.out / self.proof
        if not path.is_file():
            return False
        if self.words[0] != "train":
            return True
        try:
            return bool(json.loads(path.read_text(encoding="utf-8"))["finished"])
        except (ValueError, KeyError, TypeError):
            return False

    def argv(self) -> list[str]:
        """The command for this Python."""
        return [sys.executable, *self._launcher("torch.distributed.run"), *self.words]

    def shown(self) -> str:
        """The command as a user types it. Words that begin with "$" are variables of the shell."""
        program = ["prior-fast"] if self.processes == 1 else ["torchrun", *self._launcher("")]
        return " ".join(f'"{word}"' if word.startswith("$") else shlex.quote(word) for word in [*program, *self.words])

    def _launcher(self, module: str) -> Sequence[str]:
        if self.processes == 1:
            return ["-m", "prior_fast.cli.main"]
        first = ["-m", module] if module else []
        return [*first, "--nproc-per-node", str(self.processes), "-m", "prior_fast.cli.main"]
