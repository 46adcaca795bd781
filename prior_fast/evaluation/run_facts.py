"""What every evaluation of a checkpoint shows while it runs and writes about the checkpoint."""

from pathlib import Path
from typing import Any

from rich.progress import Progress

from prior_fast.evaluation.encode import Advance, Track
from prior_fast.training.checkpoint import Checkpoint


def track_with(bar: Progress) -> Track:
    """A `Track` whose tasks are rows of `bar`."""

    def track(name: str, total: int) -> Advance:
        row = bar.add_task(name, total=total)
        return lambda count: bar.advance(row, count)

    return track


def checkpoint_facts(given: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """The entry "checkpoint" of metrics.json; given: the path that the user named."""
    return {
        "path": str(given),
        "used": checkpoint.path.name,
        "preset": checkpoint.config.preset,
        "stage": checkpoint.position.stage,
        "total_steps": checkpoint.position.total_steps,
    }
