"""The settings of `prior-fast pictures`, and what the pictures are made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from prior_fast.config import apply_overrides
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation.encode import Encoder


@dataclass(frozen=True)
class PicturesConfig:
    """What to show.

    Attributes:
        count: studies shown in a picture of X-rays.
        seed: of the choice of studies and sentences, and of t-SNE.
        batch_size: images or texts encoded at once.
        sentences: a text file with groups of synonymous sentences, see `prior_fast.pictures.queries`; "" takes the
            built-in ones.
    """

    count: int = 4
    seed: int = 0
    batch_size: int = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"
    sentences: str = ""


def pictures_config(words: Sequence[str]) -> PicturesConfig:
    """The settings changed by key=value words.

    Raises:
        UsageError: an unknown key, or a value that can't be used.
    """
    config = apply_overrides(PicturesConfig(), words)
    for name, largest in (("count", 8), ("batch_size", 4096)):
        if not 1 <= getattr(config, name) <= largest:
            raise UsageError(f"{name}={getattr(config, name)}: wants 1 to {largest}")
    if config.seed < 0 or config.seed >= 2**32:
        raise UsageError(f"seed={config.seed}: wants 0 to {2**32 - 1}")
    return config


@dataclass(frozen=True)
class PictureInputs:
    """A checkpoint's encoder, a dataset's split, and the folder the pictures go to."""

    encoder: Encoder
    dataset: PreparedDataset
    config: PicturesConfig
    out: Path

    @property
    def stage(self) -> int:
        """The stage of pre-training that the checkpoint stands in."""
        return self.encoder.checkpoint.position.stage

    def rng(self, stream: int) -> np.random.Generator:
        """The generator of one of the independent choices."""
        return np.random.default_rng([self.config.seed, stream])
