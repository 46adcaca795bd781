"""The settings of `prior-fast evaluate generation` and `bank`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prior_fast.config import apply_overrides
from prior_fast.errors import UsageError

GENERATION, BANK = "generation", "bank"
# The split that is measured if --split is not given.
SPLITS = {GENERATION: "test", BANK: "train"}
# The settings that only one task uses.
OWN = {GENERATION: ("bank_studies",), BANK: ("context",)}


@dataclass(frozen=True)
class LearnedConfig:
    """What the decoders generate, and what the prototypes stand for.

    Attributes:
        studies: studies of the split that are drawn, at most; 0 for all.
        bank_studies: generation: training studies, at most, whose sentences give the prototypes their meaning, and as
            many of the validation split for the threshold; 0 for all.
        context: bank: whether sentences are encoded in their reports, as in training, or each alone, as prompts are.
        seed: seed of the draws, of the masked channels, of k-means and of the chance levels.
        batch_size: images or texts that are encoded at once; it affects the speed, not the numbers.
        verify: compare the dataset's files with their SHA-256 ("full") or their sizes alone.
    """

    studies: int = 1000
    bank_studies: int = 1000
    context: Literal["report", "alone"] = "report"
    seed: int = 0
    batch_size: int = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"
    verify: Literal["full", "sizes"] = "full"


def learned_config(words: Sequence[str], task: str) -> LearnedConfig:
    """The config, changed by the settings `words` of "generation" or "bank".

    Raises:
        UsageError: a key is unknown or belongs to the other task, or a value can't be used.
    """
    for word in words:
        key = word.partition("=")[0]
        for other, keys in OWN.items():
            if other != task and key in keys:
                raise UsageError(f"{key} is a setting of {other}, not of {task}: leave it out")
    config = apply_overrides(LearnedConfig(), words)
    for name, least in (("studies", 0), ("bank_studies", 0), ("batch_size", 1), ("seed", 0)):
        if getattr(config, name) < least:
            raise UsageError(f"{name}={getattr(config, name)}: must be at least {least}")
    if config.seed >= 2**32:
        raise UsageError(f"seed={config.seed}: must be less than {2**32}")
    return config
