"""The record of what the files in --out were made from. A run continues in a folder only with the same inputs."""

import hashlib
from pathlib import Path
from typing import Any

from prior_fast.config import to_dict
from prior_fast.data.dataset_folder import INFO_FILE
from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.pretrained import Pretrained
from prior_fast.downstream.settings.base import FineTuneConfig
from prior_fast.errors import UsageError
from prior_fast.files import sha256
from prior_fast.files.sealed import read_sealed, write_sealed

FILE = "settings.json"
# The settings that may change when a run continues: the device, the splits and the check of the dataset.
FREE = ("device", "splits", "verify")


def describe(task: str, config: FineTuneConfig, pretrained: Pretrained, dataset: LabelledDataset) -> dict[str, Any]:
    """The settings of a task, and hashes that identify its checkpoint and its dataset."""
    return {
        "task": task,
        "checkpoint": sha256(pretrained.path),
        "data": hashlib.sha256((dataset.root / INFO_FILE).read_bytes()).hexdigest(),
        **to_dict(config),
    }


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Write `settings` into the folder, or check that the settings in the folder are the same.

    Raises:
        UsageError: the settings in the folder differ, which the message shows by the first difference, or are damaged.
    """
    path = out / FILE
    if not path.exists():
        write_sealed(path, settings)
        return
    try:
        saved = read_sealed(path)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} can't be read ({error}): name another --out") from None
    for name, value in settings.items():
        if name in FREE:
            continue
        if name not in saved:
            raise UsageError(f"{path} has no {name!r}: name another --out")
        if saved[name] != value:
            what = {"checkpoint": "another --checkpoint", "data": "another --data"}
            made = what.get(name, f"{name}={_word(saved[name])}, not {_word(value)}")
            raise UsageError(f"{out} was made with {made}: name another --out, or give the same to continue it")


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
