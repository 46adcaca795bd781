"""Running a fine-tuned task from the command's arguments."""

from collections.abc import Sequence
from pathlib import Path

from prior_fast.console import stdout
from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.config import task_config
from prior_fast.downstream.pretrained import open_pretrained
from prior_fast.downstream.settings.classification import ClassificationConfig
from prior_fast.downstream.splits import run_splits
from prior_fast.downstream.sweep import sweep_blocks
from prior_fast.training.signals import EXIT_CODE, StopSignals


def run_task(name: str, checkpoint_path: Path, data: Path, out: Path, words: Sequence[str]) -> bool:
    """Run "classification", "segmentation" or "detection" in the folder `out`, and continue an earlier run there.

    words: key=value settings of the task's config (`prior_fast.downstream.config`).

    Returns:
        Whether a signal stopped the run (`prior_fast.training.signals`).

    Raises:
        UsageError: a setting, the checkpoint or the dataset can't be used, or `out` holds another run.
        RunError: a loss became non-finite, or a package is missing.
    """
    task_config(name, words)  # reports a misspelled setting before anything is read
    pretrained = open_pretrained(checkpoint_path)
    dataset = LabelledDataset.open(data)
    config = task_config(name, words, dataset.name)
    with StopSignals() as signals:
        if isinstance(config, ClassificationConfig) and config.sweep == "blocks":
            result = sweep_blocks(pretrained, dataset, config, out, signals.asked)
        else:
            result = run_splits(name, pretrained, dataset, config, out, signals.asked)
    if result is None:
        stdout.print(f"stopped by {signals.cause} (exit code {EXIT_CODE}); the same command continues the run in {out}")
    return result is None
