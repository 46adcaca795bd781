"""The settings of `prior-fast evaluate zero-shot` and `retrieval`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from prior_fast.config import apply_overrides
from prior_fast.errors import UsageError
from prior_fast.radiology.labels import CHEXPERT_LABELS, FIVE_CLASSES
from prior_fast.spelling import nearest

TEMPLATE, GENERATED = "template", "generated"
# Settings that mean something to one task alone.
OWN = {
    "zero-shot": ("score", "prompt", "negative_prompt", "prompts", "prompts_per_class", "prompt_pooling"),
    "retrieval": ("reports", "reports_split", "reports_per_class", "report_ids", "rank_within"),
}


@dataclass(frozen=True)
class EvaluationConfig:
    """Zero-shot classification and retrieval; docs/zero-shot.md has the protocols that the settings make.

    Attributes:
        classes: CheXpert labels; images, and reports, with exactly one of them are taken.
        per_class: images drawn of each class, at most.
        seed: of the draws, of the images and of generated prompts.
        batch_size: images, or texts, encoded at once; it changes the speed, not the numbers.
        local_weight: of the local score beside the global one: 1 by the supplement, 0.5 in the released code.
        part_of: of a labelled dataset, the split whose part is measured on; "" for "all" or "prior-0", "whole" for
            every image.
        image_ids: a file that names the images instead of a draw.
        pictures: whether PNG files are drawn.
        score: "prior" (supplement 3.2) or "gloria" (GLoRIA's and BenchX's).
        prompt: "{}" stands for the class (supplement 3.2).
        negative_prompt: the other answer where a dataset has one class; ours, the paper has no such task.
        prompts: "template" (`prompt`), "generated" (severity, kind and place), or a JSON file.
        prompts_per_class: how many are generated.
        prompt_pooling: what becomes of the scores of several prompts of a class.
        reports: a prepared dataset whose reports are the candidates; "" for those of the images' own studies.
        reports_split: where those are drawn.
        reports_per_class: how many of each class, at most; 0 for as many as there are images of the class that has
            most.
        report_ids: a file that names the reports instead of a draw.
        rank_within: candidates are ranked inside batches of that many, as BenchX does; 0 for all of them at once.
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
    score: Literal["prior", "gloria"] = "prior"
    prompt: str = "{} is observed"
    negative_prompt: str = "No {} is observed"
    prompts: str = TEMPLATE
    prompts_per_class: int = 5
    prompt_pooling: Literal["mean", "max"] = "mean"
    reports: str = ""
    reports_split: Literal["test", "validate", "train", "all"] = "test"
    reports_per_class: int = 0
    report_ids: str = ""
    rank_within: int = 0

    @property
    def one_class(self) -> bool:
        """Whether the question is one class, present or not."""
        return len(self.classes) == 1


def evaluation_config(
    words: Sequence[str],
    preset: str = "paper",
    task: str = "",
    classes: Sequence[str] = FIVE_CLASSES,
    per_class: int = EvaluationConfig.per_class,
) -> EvaluationConfig:
    """The settings for a checkpoint of `preset`, changed by key=value words.

    Args:
        task: "zero-shot" or "retrieval", whose settings alone are taken; "" for those of both.
        classes, per_class: what they are where the words don't say; a single class comes from a dataset that has no
            other, and can't be changed.

    Raises:
        UsageError: an unknown key, one of another task, or a value that can't be used.
    """
    _refuse_other_tasks(words, task)
    weight = 0.5 if preset == "released" else 1.0
    defaults = EvaluationConfig(classes=tuple(classes), per_class=per_class, local_weight=weight)
    config = apply_overrides(defaults, words)
    if config.score == "gloria":
        # Its convention: equal halves, generated prompts, the best of a class's prompts.
        gloria = replace(defaults, local_weight=1.0, prompts=GENERATED, prompt_pooling="max")
        config = apply_overrides(gloria, words)
    if len(classes) == 1:
        if config.classes != tuple(classes):
            raise UsageError(f"classes={','.join(config.classes)}: the dataset has {classes[0]} alone; leave it out")
    else:
        config = replace(config, classes=tuple(chexpert_label(name) for name in config.classes))
        if len(set(config.classes)) < max(2, len(config.classes)):
            raise UsageError(f"classes={','.join(config.classes)}: wants at least two, each named once")
    _check(config)
    return config


def _refuse_other_tasks(words: Sequence[str], task: str) -> None:
    for word in words:
        key = word.partition("=")[0]
        for other, keys in OWN.items():
            if task and other != task and key in keys:
                raise UsageError(f"{key} is a setting of {other}, not of {task}: leave it out")


def _check(config: EvaluationConfig) -> None:
    for name, least in (("per_class", 1), ("batch_size", 1), ("prompts_per_class", 1)):
        if getattr(config, name) < least:
            raise UsageError(f"{name}={getattr(config, name)}: wants at least {least}")
    for name in ("seed", "reports_per_class", "rank_within"):
        if getattr(config, name) < 0:
            raise UsageError(f"{name}={getattr(config, name)}: wants no negative number")
    if config.rank_within == 1:
        raise UsageError("rank_within=1: with one candidate there is nothing to rank; wants 2 or more, or 0 for all")
    if not (math.isfinite(config.local_weight) and config.local_weight >= 0):
        raise UsageError(f"local_weight={config.local_weight}: wants a number from 0 up")
    if config.prompt.count("{}") != 1:
        raise UsageError(f"prompt={config.prompt}: wants one {{}}, where the name of the class goes")
    if config.negative_prompt.count("{}") > 1:
        raise UsageError(f"negative_prompt={config.negative_prompt}: wants one {{}} or none")
    if config.prompts != TEMPLATE and config.prompt != EvaluationConfig.prompt:
        raise UsageError(f"prompt={config.prompt} is not used with prompts={config.prompts}: add prompts={TEMPLATE}")


def chexpert_label(name: str) -> str:
    """The CheXpert label called `name`, whatever its case.

    Raises:
        UsageError: there is none; the nearest one is named.
    """
    labels = {label.lower(): label for label in CHEXPERT_LABELS}
    key = name.strip().lower()
    if key in labels:
        return labels[key]
    hint = nearest(name.strip().title(), CHEXPERT_LABELS) or f": choose from {', '.join(CHEXPERT_LABELS)}"
    raise UsageError(f"classes: {name!r} is no CheXpert label{hint}")
