"""What the files in --out were made from: a folder goes on only with the same."""

import hashlib
import json
from pathlib import Path
from typing import Any

from prior_fast.config import to_dict
from prior_fast.data.dataset_folder import INFO_FILE
from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.pretrained import Pretrained
from prior_fast.downstream.settings.base import FineTuneConfig
from prior_fast.errors import UsageError
from prior_fast.files import sha256, write_json

FILE = "settings.json"
# What may change when a folder goes on: where it computes, and which splits it wants.
FREE = ("device", "splits")


def describe(task: str, config: FineTuneConfig, pretrained: Pretrained, dataset: LabelledDataset) -> dict[str, Any]:
    """The settings of a task, and what tells its checkpoint and its dataset from others."""
    return {
        "task": task,
        "checkpoint": sha256(pretrained.path),
        "data": hashlib.sha256((dataset.root / INFO_FILE).read_bytes()).hexdigest(),
        **to_dict(config),
    }


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Write `settings` into the folder, or see that those that are there are the same.

    Raises:
        UsageError: the folder holds a task with others; the first that differs is named.
    """
    path = out / FILE
    if not path.is_file():
        write_json(path, settings)
        return
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} can't be read ({error}): name another --out") from None
    for name, value in settings.items():
        if name not in FREE and saved.get(name) != value:
            what = {"checkpoint": "another --checkpoint", "data": "another --data"}
            made = what.get(name, f"{name}={_word(saved.get(name))}, not {_word(value)}")
            raise UsageError(f"{out} was made with {made}: name another --out, or ask for the same to go on with it")


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
