"""Running a fine-tuned task from the command's arguments."""

from collections.abc import Sequence
from pathlib import Path

from prior_fast.console import busy, stdout
from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.config import task_config
from prior_fast.downstream.pretrained import open_pretrained
from prior_fast.downstream.settings.classification import ClassificationConfig
from prior_fast.downstream.splits import run_splits
from prior_fast.downstream.sweep import sweep_blocks
from prior_fast.training.signals import StopSignals


def run_task(name: str, checkpoint_path: Path, data: Path, out: Path, words: Sequence[str]) -> int:
    """Run "classification", "segmentation" or "detection" in the folder `out`, and continue an earlier run there.

    The caller holds `out` (`prior_fast.evaluation.out_folder.hold_out`).

    words: key=value settings of the task's config (`prior_fast.downstream.config`).

    Returns:
        The exit code: 0, or that of a signal that stopped the run (`prior_fast.training.signals`).

    Raises:
        UsageError: a setting, the checkpoint or the dataset can't be used, or `out` holds another run or a damaged one.
        RunError: a loss became non-finite, the disk is full, or a package is missing.
    """
    given = task_config(name, words)  # reports a misspelled setting before anything is read
    with busy(f"reading {checkpoint_path}"):
        pretrained = open_pretrained(checkpoint_path)
    dataset = LabelledDataset.open(data, given.verify)
    config = task_config(name, words, dataset.name)
    with StopSignals() as signals:
        if isinstance(config, ClassificationConfig) and config.sweep == "blocks":
            result = sweep_blocks(pretrained, dataset, config, out, signals.asked)
        else:
            result = run_splits(name, pretrained, dataset, config, out, signals.asked)
    if result is not None:
        return 0
    code = signals.exit_code
    stdout.print(f"stopped by {signals.cause} (exit code {code}); the same command continues the run in {out}")
    return code
