"""The settings of all fine-tuned tasks, and the supplement's values for a dataset."""

import math
from dataclasses import dataclass
from typing import Literal

from prior_fast.errors import UsageError

Origin = Literal["supplement", "our choice"]
OURS: Origin = "our choice"


@dataclass(frozen=True)
class Preset:
    """One cell of the supplement's Tables 1 and 2.

    Attributes:
        source: "supplement", or "our choice" if the tables have no such cell or part of it can't be read.
    """

    learning_rate: float
    epochs: int
    batch_size: int
    source: Origin = "supplement"


@dataclass(frozen=True)
class FineTuneConfig:
    """The common config of all fine-tuned tasks.

    Attributes:
        percent: percentage of the training images: 1, 10 or 100, by the lists of the dataset.
        splits: names of the dataset's splits; empty: all of PRIOR's (`prior_fast.downstream.targets`).
        weights: "checkpoint", or "random": the same architecture with random weights, as a baseline.
        learning_rate, epochs, batch_size: the supplement's for the dataset and percentage (its Tables 1 and 2).
        optimizer, weight_decay: the supplement names neither for fine-tuning; these are its values for pre-training.
        normalization: images become z-scores by the mean and standard deviation of all images of the "dataset"
            (supplement 3: of the training set), or of the images of "pretraining".
        schedule: "cosine" (supplement 3) falls to 0 at the last step.
        augment: "flip" mirrors half of the training images; the supplement names no augmentation.
        precision: precision of the forward pass; auto: bf16 on GPUs that support it, else fp32.
        validate_every: epochs between two validations. The weights of the best validation are kept. The last epoch is
            always validated.
        verify: whether the dataset's files are compared by their SHA-256 ("full") or by their sizes alone.
        max_steps: end each split's training after this many steps; 0: no limit.
    """

    percent: int = 100
    splits: tuple[str, ...] = ()
    weights: Literal["checkpoint", "random"] = "checkpoint"
    learning_rate: float = 1e-4
    epochs: int = 5
    batch_size: int = 64
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 1e-6
    normalization: Literal["dataset", "pretraining"] = "dataset"
    schedule: Literal["cosine", "constant"] = "cosine"
    augment: Literal["none", "flip"] = "none"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    validate_every: int = 1
    max_steps: int = 0
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    verify: Literal["full", "sizes"] = "full"

    def check(self) -> None:
        """Refuse invalid values.

        Raises:
            UsageError: a value is invalid; the message names the setting.
        """
        at_least_1(self, "epochs", "batch_size", "validate_every")
        for name in ("weight_decay", "max_steps", "seed"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name}={value}: must not be negative")
        if self.seed >= 2**32:
            raise UsageError(f"seed={self.seed}: must be less than 2**32")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"learning_rate={self.learning_rate}: must be more than 0")
        each_once(self, "splits")


def at_least_1(config: FineTuneConfig, *names: str) -> None:
    """Raise UsageError if one of the settings is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise UsageError(f"{name}={getattr(config, name)}: must be at least 1")


def each_once(config: FineTuneConfig, name: str) -> None:
    """Raise UsageError if a list names something twice."""
    values = getattr(config, name)
    if len(set(values)) < len(values):
        raise UsageError(f"{name}={','.join(values)}: each must be named only once")
