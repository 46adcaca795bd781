"""The settings of the fine-tuned tasks."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prior_fast.config import apply_overrides
from prior_fast.data.labelled_dataset import PERCENTAGES
from prior_fast.downstream.presets import find_preset
from prior_fast.errors import UsageError

FULL = 4  # blocks of a ResNet-50, and "all" for any other


@dataclass(frozen=True)
class FineTuneConfig:
    """What the three tasks share.

    Attributes:
        percent: of the training images: 1, 10 or 100, by the lists of the dataset.
        splits: names of the dataset's splits; empty: all of the paper's (`prior_fast.downstream.targets`).
        weights: "checkpoint", or "random": the same architecture with fresh weights, as a baseline.
        learning_rate, epochs, batch_size: the supplement's for the dataset and percentage (its Tables 1 and 2).
        optimizer, weight_decay: the supplement names neither for fine-tuning; these are its pre-training's.
        schedule: "cosine" falls to 0 with the last step (supplement 3).
        augment: "flip" mirrors half of the training images; the supplement names no augmentation.
        precision: of the forward pass; auto: bf16 on GPUs that have it, else fp32.
        validate_every: epochs between two validations, whose best weights are kept; the last epoch is always validated.
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
    schedule: Literal["cosine", "constant"] = "cosine"
    augment: Literal["none", "flip"] = "none"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    validate_every: int = 1
    max_steps: int = 0
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class ClassificationConfig(FineTuneConfig):
    """Supervised classification (supplement 3.1).

    Attributes:
        classes: labels of the dataset; empty: the five of CheXpert 5x200 where the dataset has them, else all.
        blocks: how many of the encoder's last stages are trained (the paper's Figure 3): 0 trains the linear layer
            alone, as many as there are, or 4, everything, the stem included.
        pool: how the encoder's map becomes a vector: "average", or the pre-trained attention pool.
        sweep: "blocks" repeats the task for every number of blocks.
    """

    classes: tuple[str, ...] = ()
    blocks: int = FULL
    pool: Literal["average", "attention"] = "average"
    sweep: Literal["none", "blocks"] = "none"


@dataclass(frozen=True)
class SegmentationConfig(FineTuneConfig):
    """Semantic segmentation (supplement 3.4).

    Attributes:
        frozen: train the decoder alone.
        decoder_channels: of the U-Net at strides 16, 8, 4, 2, 1; the default is segmentation_models_pytorch's.
    """

    frozen: bool = False
    decoder_channels: tuple[int, int, int, int, int] = (256, 128, 64, 32, 16)


@dataclass(frozen=True)
class DetectionConfig(FineTuneConfig):
    """Object detection (supplement 3.5). The sizes of Faster R-CNN's own parts are torchvision's.

    Attributes:
        frozen: leave the encoder as it is.
        pyramid_channels: of the feature pyramid.
        head_width: of the two layers that look at a proposal.
        proposals: boxes of an image that the second stage is trained on.
    """

    frozen: bool = False
    pyramid_channels: int = 256
    head_width: int = 1024
    proposals: int = 512


CONFIGS: dict[str, type[FineTuneConfig]] = {
    "classification": ClassificationConfig,
    "segmentation": SegmentationConfig,
    "detection": DetectionConfig,
}


def task_config(task: str, words: Sequence[str], dataset: str = "") -> FineTuneConfig:
    """The settings of `task` for the dataset called `dataset`, changed by key=value words.

    Raises:
        UsageError: an unknown key, or a value that can't be used.
    """
    config = CONFIGS[task]()
    percent = apply_overrides(config, words).percent
    if percent not in PERCENTAGES:
        raise UsageError(f"percent={percent}: choose from {', '.join(map(str, PERCENTAGES))}")
    cell = find_preset(task, dataset, percent)
    config = dataclasses.replace(
        config, learning_rate=cell.learning_rate, epochs=cell.epochs, batch_size=cell.batch_size
    )
    config = apply_overrides(config, words)
    _check(config)
    return config


def _check(config: FineTuneConfig) -> None:
    for name in ("epochs", "batch_size", "validate_every", "pyramid_channels", "head_width", "proposals"):
        if getattr(config, name, 1) < 1:
            raise UsageError(f"{name}={getattr(config, name)}: wants at least 1")
    if min(getattr(config, "decoder_channels", (1,))) < 1:
        raise UsageError("decoder_channels: wants at least 1 at each stride")
    for name in ("weight_decay", "max_steps", "seed"):
        value = getattr(config, name)
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{name}={value}: wants no negative number")
    if config.seed >= 2**32:
        raise UsageError(f"seed={config.seed}: wants less than 2**32")
    if not (math.isfinite(config.learning_rate) and config.learning_rate > 0):
        raise UsageError(f"learning_rate={config.learning_rate}: wants more than 0")
    for name in ("splits", "classes"):
        values = getattr(config, name, ())
        if len(set(values)) < len(values):
            raise UsageError(f"{name}={','.join(values)}: wants each named once")
    if isinstance(config, ClassificationConfig) and not 0 <= config.blocks <= FULL:
        raise UsageError(f"blocks={config.blocks}: wants 0 to {FULL}")
