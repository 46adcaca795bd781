"""The settings of all fine-tuned tasks, and the supplement's values for a dataset."""

import math
from dataclasses import dataclass
from typing import Literal

from prior_fast.config.setting import DEVICE, setting
from prior_fast.errors import UsageError

# Those of the lists of a labelled dataset, whose module loads pyarrow.
TRAINING_PERCENTAGES = (1, 10, 100)

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
    """The common config of all fine-tuned tasks."""

    percent: int = setting(
        100, "percentage of the training images, by the lists of the dataset", choices=TRAINING_PERCENTAGES
    )
    splits: tuple[str, ...] = setting((), "splits of the dataset; empty: all of PRIOR's")
    weights: Literal["checkpoint", "random"] = setting(
        "checkpoint", "random: the checkpoint's architecture with fresh weights, as a baseline"
    )
    learning_rate: float = setting(
        1e-4, "learning rate; if it is not given, the supplement's for the dataset and the percentage"
    )
    epochs: int = setting(5, "epochs; if it is not given, the supplement's for the dataset and the percentage")
    batch_size: int = setting(
        64, "images of a step; if it is not given, the supplement's for the dataset and the percentage"
    )
    optimizer: Literal["adam", "adamw"] = setting(
        "adam", "the supplement names none for fine-tuning; this is its optimizer of pre-training"
    )
    weight_decay: float = setting(
        1e-6,
        "weight decay of the optimizer; the supplement names none for fine-tuning; this is its value of pre-training",
    )
    normalization: Literal["dataset", "pretraining"] = setting(
        "dataset",
        "whose mean and standard deviation normalize the images: those of all images of the dataset (supplement 3: of "
        "the training set), or of the images of pre-training",
    )
    schedule: Literal["cosine", "constant"] = setting(
        "cosine", "learning rate over the steps; cosine (supplement 3) falls to 0 at the last step"
    )
    augment: Literal["none", "flip"] = setting(
        "none", "flip mirrors half of the training images; the supplement names no augmentation"
    )
    precision: Literal["auto", "bf16", "fp32"] = setting(
        "auto", "precision of the forward pass; auto: bf16 on GPUs that support it, else fp32"
    )
    validate_every: int = setting(
        1,
        "epochs between two validations; the weights of the best one are kept; the last epoch is always validated",
    )
    max_steps: int = setting(0, "end each split's training after this many steps; 0: no limit")
    seed: int = setting(0, "seed of the fresh weights and of the order of the images")
    device: Literal["auto", "cpu", "cuda"] = setting("auto", DEVICE)
    verify: Literal["full", "sizes"] = setting(
        "full", "whether the dataset's files are compared by their SHA-256, or by their sizes alone"
    )

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
