"""The settings of `prior-fast pictures`, and what the pictures are made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from prior_fast.config import apply_overrides
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation.config import TEMPLATE, ZERO_SHOT, EvaluationConfig, evaluation_config
from prior_fast.evaluation.encode import Encoder, first_image_rows
from prior_fast.evaluation.prompts import check_prompts
from prior_fast.evaluation.statements import FINDINGS
from prior_fast.radiology.labels import FIVE_CLASSES, present

SAMPLE = 256
MOST_CLASSES = 8  # of a dataset's own classes in a picture


@dataclass(frozen=True)
class PicturesConfig:
    """The config of the pictures.

    Attributes:
        count: number of studies shown in a picture of X-rays.
        seed: seed of the choice of studies and sentences, and of t-SNE.
        batch_size: images or texts that are encoded at once.
        sentences: a text file with groups of synonymous sentences, see `prior_fast.pictures.queries`; "" uses the
            built-in groups.
        prompts, prompts_per_class: those of the zero-shot section, as in `EvaluationConfig`.
    """

    count: int = 4
    seed: int = 0
    batch_size: int = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"
    sentences: str = ""
    prompts: str = TEMPLATE
    prompts_per_class: int = EvaluationConfig.prompts_per_class

    @property
    def zero_shot(self) -> list[str]:
        """The settings of `prior-fast evaluate zero-shot` that give the section's numbers."""
        return [f"{name}={getattr(self, name)}" for name in ("seed", "prompts", "prompts_per_class")]


def pictures_config(words: Sequence[str]) -> PicturesConfig:
    """The config, changed by the settings `words`.

    Raises:
        UsageError: a key is unknown, or a value can't be used.
    """
    config = apply_overrides(PicturesConfig(), words)
    for name, largest in (("count", 8), ("batch_size", 4096)):
        if not 1 <= getattr(config, name) <= largest:
            raise UsageError(f"{name}={getattr(config, name)}: must be 1 to {largest}")
    if config.seed < 0 or config.seed >= 2**32:
        raise UsageError(f"seed={config.seed}: must be 0 to {2**32 - 1}")
    evaluation_config(config.zero_shot, task=ZERO_SHOT)  # refuses what can't be used
    check_prompts(config.prompts)
    return config


@dataclass(frozen=True)
class PictureInputs:
    """A checkpoint's encoder, a dataset's split, the config, and the folder of the pictures."""

    encoder: Encoder
    dataset: PreparedDataset
    config: PicturesConfig
    out: Path

    @property
    def stage(self) -> int:
        """The stage of pre-training in which the checkpoint was written."""
        return self.encoder.checkpoint.position.stage

    @property
    def no_bank(self) -> str:
        """The reason why sections about the bank are left out; "" if the checkpoint has a trained bank."""
        if self.encoder.uses_bank:
            return ""
        if not self.encoder.model.config.use_bank:
            return "This model was trained with model.use_bank=false: it has no trained bank."
        return "This checkpoint is from stage 1: the bank is trained from stage 2 on."

    @cached_property
    def own_classes(self) -> tuple[str, ...]:
        """The classes that stand for the dataset's findings: its own labels, unless they include CheXpert's five.

        Those that most studies of the split have, at most `MOST_CLASSES`, in the dataset's order; () without labels.
        """
        dataset = self.dataset
        if set(FIVE_CLASSES) <= set(dataset.classes):
            return ()
        counts = present(dataset.labels, dataset.classes, dataset.classes).sum(axis=0)
        most = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
        return tuple(dataset.classes[index] for index in np.sort(most[counts[most] > 0]))

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings that pictures show: the dataset's own classes, or else those of `statements.FINDINGS`."""
        return self.own_classes or FINDINGS

    @cached_property
    def sample(self) -> np.ndarray:
        """Rows of the first images of up to `SAMPLE` random studies, on which rates and means are computed: int64."""
        studies = np.sort(self.rng(2).permutation(len(self.dataset))[:SAMPLE])
        return first_image_rows(self.dataset, studies)

    def rng(self, stream: int) -> np.random.Generator:
        """The random generator of one of the independent choices."""
        return np.random.default_rng([self.config.seed, stream])
