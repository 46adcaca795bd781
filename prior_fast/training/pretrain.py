"""A training run, from its config to its last checkpoint."""

from contextlib import nullcontext
from pathlib import Path

from prior_fast.config import RunConfig
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import RunError, UsageError
from prior_fast.training.checkpoint import Checkpoint, list_checkpoints
from prior_fast.training.checkpoint_writer import (
    drop_checkpoints,
)
from prior_fast.training.chosen_convs import check_convolutions
from prior_fast.training.cudnn import cudnn_for_training
from prior_fast.training.distributed import Ranks, join_ranks
from prior_fast.training.finite import NotFinite
from prior_fast.training.job import Job
from prior_fast.training.run import Run
from prior_fast.training.run_folder import CHECKPOINTS, check_same_dataset, claim_run
from prior_fast.training.signals import StopSignals
from prior_fast.training.step import compiles, records_parts


def train(
    config: RunConfig, data: Path, out: Path, checkpoint: Checkpoint | None, stop_after: int = 0, dataset: str = ""
) -> int:
    """Train all stages, from the start or from `checkpoint`, into the folder `out`.

    On a CPU it may start other processes, which share the batches (the setting `processes`) and end with it.

    Args:
        stop_after: write a checkpoint and stop after this many steps of the whole run; 0: run to the end.
        dataset: the digest that the dataset must have (`run_folder.dataset_digest`); "": any dataset.

    Returns:
        0, or the exit code of a run that a signal stopped before its end (`prior_fast.training.signals`).

    Raises:
        UsageError: the data, weights or settings can't be used together, or `out` holds something else.
        RunError: a value became non-finite, the disk is full, another process trains in `out`, or another process of
            the run died.
    """
    job = Job(config, data, out, checkpoint.path if checkpoint else None, stop_after, dataset)
    with join_ranks(job) as ranks:
        return train_as(ranks, job, checkpoint)


def train_as(ranks: Ranks, job: Job, checkpoint: Checkpoint | None) -> int:
    """Do the part of `ranks.rank` in a run; see `train`. All ranks call it with the same job."""
    # These raise for settings that don't work here, before anything is read.
    records_parts(job.config, ranks)
    check_convolutions(job.config, ranks.device, compiles(job.config, ranks.device))
    dataset = PreparedDataset.open(job.data, "train", "sizes")
    check_dataset(job, dataset, checkpoint)
    claim = claim_run(job, dataset) if ranks.writes else nullcontext()
    with cudnn_for_training(job.config.cudnn_benchmark), claim:
        run = Run(job, dataset, ranks, checkpoint)
        try:
            with StopSignals(run.ranks.group, speaks=ranks.writes) as signals:
                return run.execute(job.stop_after, signals)
        except NotFinite as error:
            if not ranks.writes:
                raise
            raise RunError(f"{error}; {how_to_go_on(job.out / CHECKPOINTS, error.steps)}") from None
        finally:
            run.close()


def how_to_go_on(folder: Path, steps: int | None) -> str:
    """Remove the checkpoints with the weights that led to the error, and say what the user can do."""
    dropped = [] if steps is None else drop_checkpoints(folder, steps)
    left = list_checkpoints(folder)
    where = f"goes on from {left[-1].name}" if left else "starts again, since there is no earlier checkpoint"
    removed = f" (removed, since its weights led here: {', '.join(dropped)})" if dropped else ""
    # `resume.FREE` allows these changes.
    return f"--resume auto with a lower learning_rate or clip_norm {where}{removed}"


def check_dataset(job: Job, dataset: PreparedDataset, checkpoint: Checkpoint | None) -> None:
    """Raise UsageError unless the run can be trained, or go on, with this dataset."""
    if checkpoint is not None:
        checkpoint.check_dataset(dataset)
    check_same_dataset(job.dataset, dataset, checkpoint.path if checkpoint else job.out)
    if not dataset.image_std > 0:
        raise UsageError(f"{dataset.root}: all training images have one gray level, so there is nothing to learn")
