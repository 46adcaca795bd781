"""The config of a fine-tuned task: the defaults, the paper's values for a dataset, and the user's settings."""

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

from prior_fast.config import apply_overrides
from prior_fast.downstream.settings.base import OURS, FineTuneConfig, Preset
from prior_fast.errors import UsageError

# Each task has a module in settings/ (its config, without torch) and one in tasks/ (its network).
TASKS = ("classification", "segmentation", "detection")


def settings_of(task: str) -> Any:
    """The module in settings/ of a task."""
    return importlib.import_module(f"prior_fast.downstream.settings.{task}")


def task_config(task: str, words: Sequence[str], dataset: str = "") -> FineTuneConfig:
    """The config of `task` for the dataset `dataset`, changed by the settings `words`.

    Raises:
        UsageError: a key is unknown, or a value can't be used.
    """
    from prior_fast.data.labelled_dataset import PERCENTAGES  # imported late: loads pyarrow, which --help does not need

    config: FineTuneConfig = settings_of(task).CONFIG()
    percent = apply_overrides(config, words).percent
    if percent not in PERCENTAGES:
        raise UsageError(f"percent={percent}: choose from {', '.join(map(str, PERCENTAGES))}")
    cell = find_preset(task, dataset, percent)
    config = dataclasses.replace(
        config, learning_rate=cell.learning_rate, epochs=cell.epochs, batch_size=cell.batch_size
    )
    config = apply_overrides(config, words)
    config.check()
    return config


def find_preset(task: str, dataset: str, percent: int) -> Preset:
    """The supplement's learning rate, epochs and batch size for a task, a dataset's name and 1, 10 or 100 percent.

    Datasets that are not in its tables use the cells of the task's `FALLBACK`, marked as our choice.
    """
    settings = settings_of(task)
    if dataset in settings.PRESETS:
        return settings.PRESETS[dataset][percent]
    cell = settings.PRESETS[settings.FALLBACK][percent]
    return Preset(cell.learning_rate, cell.epochs, cell.batch_size, OURS)
