"""The settings of `prior-fast evaluate zero-shot` and `retrieval`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from prior_fast.config import apply_overrides
from prior_fast.errors import UsageError
from prior_fast.radiology.labels import FIVE_CLASSES

ZERO_SHOT, RETRIEVAL = "zero-shot", "retrieval"
TEMPLATE, GENERATED = "template", "generated"
# The settings that only one task uses.
OWN = {
    ZERO_SHOT: ("score", "prompt", "negative_prompt", "prompts", "prompts_per_class", "prompt_pooling"),
    RETRIEVAL: (
        *("by", "studies", "cutoffs", "reports", "reports_split", "reports_per_class", "report_ids", "rank_within"),
    ),
}


@dataclass(frozen=True)
class EvaluationConfig:
    """Zero-shot classification and retrieval. docs/zero-shot.md has the settings of published protocols.

    Attributes:
        classes: labels of the dataset. Images and reports with exactly one of them are used; with a single class, all
            of them, and the question is whether they have it.
        per_class: images drawn of each class, at most.
        seed: the seed of the draws and of generated prompts.
        batch_size: images or texts that are encoded at once; it affects the speed, not the numbers.
        local_weight: weight of the local score; the global score has 1. The supplement has 1, the released code 0.5. It
            is 0 for a model without local alignment.
        part_of: the split of a labelled dataset of which a part is evaluated; "" for "all" or "prior-0", "whole" for
            every image.
        image_ids: a file with the ids of the images, which are then not drawn.
        pictures: whether PNG files are drawn.
        verify: whether the files of the datasets are compared by their SHA-256 ("full") or by their sizes alone.
        score: "prior" (supplement 3.2) or "gloria" (GLoRIA's and BenchX's).
        prompt: a sentence in which "{}" is replaced by the class (supplement 3.2).
        negative_prompt: the prompt of the negative answer for a single class. It is our choice, since the paper has
            no such task.
        prompts: "template" (`prompt`), "generated" (severity, kind and place), or a JSON file.
        prompts_per_class: number of generated prompts of a class.
        prompt_pooling: how the scores of several prompts of a class are combined.
        by: whether retrieval takes studies by their classes, or all of them without classes. `dataset_config` decides
            what "auto" is.
        studies: the studies of by=study, at most; 0 for all.
        cutoffs: the numbers of best candidates K of the metrics.
        reports: a prepared dataset whose reports are the candidates; "" for the reports of the images' own studies.
        reports_split: the split from which these reports are drawn.
        reports_per_class: reports of each class, at most; 0 for the greatest number of images of a class.
        report_ids: a file with the ids of the reports, which are then not drawn.
        rank_within: candidates are ranked within batches of this size, as in BenchX; 0 ranks all of them at once.
    """

    classes: tuple[str, ...] = FIVE_CLASSES
    per_class: int = 200
    seed: int = 0
    batch_size: int = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"
    local_weight: float = 1.0
    part_of: str = ""
    image_ids: str = ""
    pictures: bool = True
    verify: Literal["full", "sizes"] = "full"
    score: Literal["prior", "gloria"] = "prior"
    prompt: str = "{} is observed"
    negative_prompt: str = "No {} is observed"
    prompts: str = TEMPLATE
    prompts_per_class: int = 5
    prompt_pooling: Literal["mean", "max"] = "mean"
    by: Literal["auto", "class", "study"] = "auto"
    studies: int = 5000
    cutoffs: tuple[int, ...] = (1, 5, 10)
    reports: str = ""
    reports_split: Literal["test", "validate", "train", "all"] = "test"
    reports_per_class: int = 0
    report_ids: str = ""
    rank_within: int = 0

    @property
    def one_class(self) -> bool:
        """Whether there is only one class, whose presence is the question."""
        return len(self.classes) == 1


def evaluation_config(
    words: Sequence[str],
    preset: str = "paper",
    task: str = "",
    classes: Sequence[str] = FIVE_CLASSES,
    per_class: int = EvaluationConfig.per_class,
    aligns_locally: bool = True,
) -> EvaluationConfig:
    """The config for a checkpoint of `preset`, changed by the settings `words`.

    Args:
        task: "zero-shot" or "retrieval", to accept only its settings; "" accepts those of both.
        classes, per_class: their defaults. `dataset_config` compares classes with those of the dataset.
        aligns_locally: whether the model was trained with local alignment. Without it there is no local score.

    Raises:
        UsageError: a key is unknown or belongs to the other task, or a value can't be used.
    """
    _refuse_other_tasks(words, task)
    trained = 1.0 if aligns_locally else 0.0
    weight = 0.5 * trained if preset == "released" else trained
    defaults = EvaluationConfig(classes=tuple(classes), per_class=per_class, local_weight=weight)
    config = apply_overrides(defaults, words)
    if config.score == "gloria":
        # GLoRIA's convention: equal weights, generated prompts, the maximum over the prompts of a class.
        gloria = replace(defaults, local_weight=trained, prompts=GENERATED, prompt_pooling="max")
        config = apply_overrides(gloria, words)
    if config.local_weight and not aligns_locally:
        raise UsageError(
            f"local_weight={config.local_weight}: the model was trained with model.use_local_alignment=false and has "
            "no local score; leave it out"
        )
    _check(config)
    return config


def keys_of(words: Sequence[str]) -> list[str]:
    """The keys of key=value settings."""
    return [word.partition("=")[0] for word in words]


def _refuse_other_tasks(words: Sequence[str], task: str) -> None:
    for key in keys_of(words):
        for other, keys in OWN.items():
            if task and other != task and key in keys:
                raise UsageError(f"{key} is a setting of {other}, not of {task}: leave it out")


def _check(config: EvaluationConfig) -> None:
    if len({name.strip().lower() for name in config.classes}) < len(config.classes):
        raise UsageError(f"classes={','.join(config.classes)}: must be names of classes, each named once")
    for name, least in (("per_class", 1), ("batch_size", 1), ("prompts_per_class", 1)):
        if getattr(config, name) < least:
            raise UsageError(f"{name}={getattr(config, name)}: must be at least {least}")
    for name in ("seed", "studies", "reports_per_class", "rank_within"):
        if getattr(config, name) < 0:
            raise UsageError(f"{name}={getattr(config, name)}: must not be negative")
    if min(config.cutoffs) < 1 or len(set(config.cutoffs)) < len(config.cutoffs):
        raise UsageError(f"cutoffs={','.join(map(str, config.cutoffs))}: must be different numbers of 1 or more")
    if config.rank_within == 1:
        raise UsageError("rank_within=1: with one candidate there is nothing to rank; must be 2 or more, or 0 for all")
    if not (math.isfinite(config.local_weight) and config.local_weight >= 0):
        raise UsageError(f"local_weight={config.local_weight}: must be a finite number of 0 or more")
    if config.prompt.count("{}") != 1:
        raise UsageError(f"prompt={config.prompt}: must have one {{}}, for the name of the class")
    if config.negative_prompt.count("{}") > 1:
        raise UsageError(f"negative_prompt={config.negative_prompt}: must have at most one {{}}")
    if config.prompts != TEMPLATE and config.prompt != EvaluationConfig.prompt:
        raise UsageError(f"prompt={config.prompt} is not used with prompts={config.prompts}: add prompts={TEMPLATE}")
