"""What a training run was asked for, as text that the run's other processes read."""

import json
from dataclasses import dataclass
from pathlib import Path

from prior_fast.config import RunConfig, from_dict, to_dict


@dataclass(frozen=True)
class Job:
    """The arguments of `prior_fast.training.pretrain.train`.

    checkpoint: the folder of the checkpoint that the run goes on from.
    dataset: the digest that the dataset must have (`run_folder.dataset_digest`); "": any dataset.
    """

    config: RunConfig
    data: Path
    out: Path
    checkpoint: Path | None = None
    stop_after: int = 0
    dataset: str = ""

    def to_json(self) -> str:
        """The job in one line. JSON, not a pickle: reading it can't run code."""
        return json.dumps(
            {
                "config": to_dict(self.config),
                "data": str(self.data),
                "out": str(self.out),
                "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
                "stop_after": self.stop_after,
                "dataset": self.dataset,
            }
        )

    @staticmethod
    def from_json(text: str) -> "Job":
        """The job of a line that `to_json` made."""
        values = json.loads(text)
        checkpoint = values["checkpoint"]
        return Job(
            config=from_dict(RunConfig, values["config"]),
            data=Path(values["data"]),
            out=Path(values["out"]),
            checkpoint=None if checkpoint is None else Path(checkpoint),
            stop_after=values["stop_after"],
            dataset=values["dataset"],
        )
