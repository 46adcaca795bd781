"""What a run starts from: nothing, the settings of a run without a checkpoint, or a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prior_fast.config import RunConfig, apply_overrides, to_dict, validate_config
from prior_fast.errors import UsageError
from prior_fast.training.checkpoint import Checkpoint, list_checkpoints, newest_sound, open_checkpoint
from prior_fast.training.run_folder import CHECKPOINTS, started_config, started_dataset

AUTO = "auto"

# Settings that may change when a run is resumed. Changing any other setting would make it a different run. The learning
# rates and clip_norm are among them: the message of a run with values that are not finite advises to lower them.
FREE = (
    *("device", "processes", "workers", "cudnn_benchmark", "cuda_graphs"),
    *("optimizer_kernel", "upsampled_conv"),
    *("log_every", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "profile", "verify"),
    *("learning_rate", "learning_rate_start", "text_learning_rate", "clip_norm"),
)


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Attributes:
        config: the settings of the run.
        checkpoint: the checkpoint that it goes on from.
        dataset: the digest of the dataset that it must have; "": any.
        notes: what the user should know.
    """

    config: RunConfig
    checkpoint: Checkpoint | None = None
    dataset: str = ""
    notes: list[str] = field(default_factory=list)


def find_start(config: RunConfig, out: Path, resume: str | None, preset: str | None, settings: Sequence[str]) -> Start:
    """What the command's arguments ask for.

    Args:
        config: the preset with the settings, for a new run.
        resume: "auto": the newest checkpoint in `out` whose files are sound, else the settings of a run that was
            stopped before its first checkpoint, else nothing; the path of a checkpoint; None: nothing.
        preset, settings: those that the user named.

    Raises:
        UsageError: there is a run and `resume` is None; a checkpoint is damaged or was made with other settings.
    """
    if resume is None:
        if list_checkpoints(out / CHECKPOINTS):
            raise UsageError(f"{out} already holds a run: add --resume auto to go on with it, or name another --out")
        return Start(config)
    if resume != AUTO:
        checkpoint = open_checkpoint(Path(resume))
        checkpoint.verify()
        return Start(
            _changed(checkpoint.config, str(checkpoint.path), preset, settings), checkpoint, checkpoint.dataset
        )
    found, damaged = newest_sound(out)
    if found is not None:
        notes = [f"{reason}; going on from {found.path}" for reason in damaged]
        return Start(_changed(found.config, str(found.path), preset, settings), found, found.dataset, notes)
    saved = started_config(out)
    if saved is None:
        return Start(config)
    notes = [f"{out} has no checkpoint yet: the run starts again, with its settings"]
    return Start(_changed(saved, str(out), preset, settings), None, started_dataset(out), notes)


def _changed(saved: RunConfig, where: str, preset: str | None, settings: Sequence[str]) -> RunConfig:
    """The saved config with the settings that are in FREE.

    Raises:
        UsageError: the user asks for another preset, or changes a setting that is not in FREE.
    """
    if preset is not None and preset != saved.preset:
        raise UsageError(f"{where} was made with --preset {saved.preset}, not {preset}")
    config = apply_overrides(saved, settings)
    validate_config(config)
    for word in settings:
        key = word.split("=")[0]
        old, new = _lookup(to_dict(saved), key), _lookup(to_dict(config), key)
        if old != new and key.rsplit(".", 1)[-1] not in FREE:
            raise UsageError(f"{where} was made with {key}={old}: a resumed run can't change it to {new}")
    return config


def _lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values
