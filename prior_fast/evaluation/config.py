"""The settings of `prior-fast evaluate`."""

import dataclasses
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prior_fast.config import apply_overrides
from prior_fast.data.store import CHEXPERT_LABELS
from prior_fast.errors import UsageError

# The classes of CheXpert 5x200, in the order of the authors' list.
FIVE_CLASSES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


@dataclass(frozen=True)
class EvaluationConfig:
    """Zero-shot classification and retrieval on studies with exactly one of `classes`.

    Attributes:
        classes: CheXpert labels.
        prompt: "{}" stands for the class (supplement 3.2).
        per_class: studies drawn of each class, at most.
        seed: of the draw.
        batch_size: images, or texts, encoded at once; it changes the speed, not the numbers.
        local_weight: of the local score beside the global one: 1 by the supplement, 0.5 in the released code.
    """

    classes: tuple[str, ...] = FIVE_CLASSES
    prompt: str = "{} is observed"
    per_class: int = 200
    seed: int = 0
    batch_size: int = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"
    local_weight: float = 1.0

    def prompts(self) -> list[str]:
        """The prompt of each class."""
        return [self.prompt.replace("{}", name) for name in self.classes]


def evaluation_config(words: Sequence[str], preset: str = "paper") -> EvaluationConfig:
    """The settings for a checkpoint of `preset`, changed by key=value words.

    Raises:
        UsageError: an unknown key, or a value that can't be used.
    """
    defaults = EvaluationConfig(local_weight=0.5 if preset == "released" else 1.0)
    config = apply_overrides(defaults, words)
    config = dataclasses.replace(config, classes=tuple(chexpert_label(name) for name in config.classes))
    for name in ("per_class", "batch_size"):
        if getattr(config, name) < 1:
            raise UsageError(f"{name}={getattr(config, name)}: wants at least 1")
    if config.seed < 0:
        raise UsageError(f"seed={config.seed}: wants no negative number")
    if not (math.isfinite(config.local_weight) and config.local_weight >= 0):
        raise UsageError(f"local_weight={config.local_weight}: wants a number from 0 up")
    if config.prompt.count("{}") != 1:
        raise UsageError(f"prompt={config.prompt}: wants one {{}}, where the name of the class goes")
    if len(set(config.classes)) < max(2, len(config.classes)):
        raise UsageError(f"classes={','.join(config.classes)}: wants at least two, each named once")
    return config


def chexpert_label(name: str) -> str:
    """The CheXpert label called `name`, whatever its case.

    Raises:
        UsageError: there is none; the nearest one is named.
    """
    labels = {label.lower(): label for label in CHEXPERT_LABELS}
    key = name.strip().lower()
    if key in labels:
        return labels[key]
    near = difflib.get_close_matches(key, labels, n=1)
    hint = f"did you mean {labels[near[0]]!r}?" if near else f"choose from {', '.join(CHEXPERT_LABELS)}"
    raise UsageError(f"classes: {name!r} is no CheXpert label: {hint}")
