"""The smallest inputs of the commands, made once by the commands themselves."""

import csv
from collections.abc import Sequence
from pathlib import Path

from tests.small_model import SMALL_MODEL
from tests.torture.warm import Warm

TRAINING = (
    *("--preset", "tiny", "batch_size=2", "stage_epochs=1,1,1", "max_steps_per_stage=2", "log_every=1"),
    *("checkpoint_every=1", "keep_checkpoints=2", "data.workers=0", "device=cpu", *SMALL_MODEL),
)
LABELS = ("Effusion", "Edema")


class Inputs:
    """A folder of inputs, each made when it is first asked for.

    Args:
        root: the folder; a folder of an earlier run is used again.
        warm: runs the commands.
    """

    def __init__(self, root: Path, warm: Warm) -> None:
        self.root, self._warm = root, warm
        root.mkdir(parents=True, exist_ok=True)

    def mimic(self) -> Path:
        """Made-up X-rays and reports."""
        return self._made("mimic", "phantom --out {out} --studies 12 --size 64 --seed 1 --workers 1")

    def rsna(self) -> Path:
        return self._made("rsna", "phantom --layout rsna --out {out} --studies 12 --size 64 --seed 3 --workers 1")

    def siim(self) -> Path:
        return self._made("siim", "phantom --layout siim --out {out} --studies 12 --size 64 --seed 3 --workers 1")

    def prepared(self) -> Path:
        """A prepared dataset."""
        return self._made("prepared", f"prepare mimic --images {self.mimic()} --out {{out}} --workers 1")

    def labelled(self) -> Path:
        """A labelled dataset."""
        return self._made("labelled", f"prepare rsna --images {self.rsna()} --out {{out}} --workers 1")

    def run(self) -> Path:
        """A training run."""
        return self._made("run", f"train --data {self.prepared()} --out {{out}} processes=1", TRAINING)

    def stopped_run(self) -> Path:
        """A training run that was stopped after three of its six steps."""
        words = f"train --data {self.prepared()} --out {{out}} processes=1 --stop-after 3"
        return self._made("stopped-run", words, TRAINING)

    def reports_table(self) -> Path:
        """A table of images and reports; the images are in mimic()."""
        rows = [
            (image.relative_to(self.mimic()), (image.parent.parent / f"{image.parent.name}.txt").read_text())
            for image in sorted(self.mimic().glob("files/*/*/*/*.jpg"))
        ]
        return self._table("reports.csv", ("image", "report"), rows)

    def labels_table(self) -> Path:
        """A table of images and labels; the images are in mimic()."""
        images = sorted(self.mimic().glob("files/*/*/*/*.jpg"))
        rows = [(image.relative_to(self.mimic()), row % 2, row % 3 == 0) for row, image in enumerate(images)]
        return self._table("labels.csv", ("image", *LABELS), [(name, a, int(b)) for name, a, b in rows])

    def released(self) -> Path:
        """A file with the released code's key names, and a tokenizer's folder beside it."""
        path = self.root / "released.ckpt"
        if not path.exists():
            import json

            import torch

            from tests.released_files import released_names, small_released

            words = json.loads((self.prepared() / "tokenizer/tokenizer.json").read_text())["model"]["vocab"]
            torch.save({"state_dict": released_names(small_released(len(words)))}, path)
        return path

    def _made(self, name: str, words: str, more: Sequence[str] = ()) -> Path:
        path = self.root / name
        if not path.exists():
            found = self._warm.run([*words.format(out=path).split(), *more], self.root)
            assert found.code == 0, f"{words.split()[0]}: {found.stderr.strip().splitlines()[-1:]}"
        return path

    def _table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
        path = self.root / name
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path
