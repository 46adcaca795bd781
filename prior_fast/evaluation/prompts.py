"""The prompts of the classes: from one template (supplement 3.2), generated, or from a file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prior_fast.errors import UsageError
from prior_fast.evaluation.config import GENERATED, TEMPLATE, EvaluationConfig
from prior_fast.evaluation.prompt_words import generated_prompts
from prior_fast.spelling import nearest

SIDES = ("positive", "negative")


@dataclass(frozen=True)
class Prompts:
    """Prompts of all answers.

    Attributes:
        texts: the prompts, one sentence each.
        owner: int64 [M], the number of each prompt's answer.
    """

    texts: list[str]
    owner: np.ndarray

    def by_answer(self, answers: Sequence[str]) -> dict[str, list[str]]:
        """The prompts of each answer."""
        return {
            name: [text for text, owner in zip(self.texts, self.owner) if owner == number]
            for number, name in enumerate(answers)
        }


def make_prompts(config: EvaluationConfig) -> Prompts:
    """The prompts of each class. For a single class: the prompts of its presence, then of its absence.

    Raises:
        UsageError: the file can't be read, names an unknown class, leaves one out or has no prompt for one.
    """
    if config.prompts == TEMPLATE:
        groups = {name: {"positive": [config.prompt.replace("{}", name)]} for name in config.classes}
    elif config.prompts == GENERATED:
        groups = {
            name: {"positive": generated_prompts(name, config.prompts_per_class, config.seed)}
            for name in config.classes
        }
    else:
        groups = read_prompts(config.prompts, config.classes)
    lists = [groups[name]["positive"] for name in config.classes]
    if config.one_class:
        name = config.classes[0]
        lists.append(groups[name].get("negative") or [config.negative_prompt.replace("{}", name)])
    elif config.negative_prompt != EvaluationConfig.negative_prompt or any("negative" in g for g in groups.values()):
        raise UsageError(
            f"negative prompts are for datasets with one class, not for {len(config.classes)}: leave them out"
        )
    texts = [text for prompts in lists for text in prompts]
    return Prompts(texts, np.repeat(np.arange(len(lists)), [len(prompts) for prompts in lists]))


def read_prompts(path: str, classes: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """The prompts of a JSON file: for each class those of its presence ("positive") and optionally of its absence.

    The file: {"Edema": ["prompt", ...], ...}, or {"positive": [...], "negative": [...]} in place of a list.

    Raises:
        UsageError: as in `make_prompts`.
    """
    content = _read_object(path, classes[0])
    for name in content:
        if name not in classes:
            hint = nearest(name, classes) or f": the classes are {', '.join(classes)}"
            raise UsageError(f"prompts={path}: unknown class {name!r}{hint}")
    missing = [name for name in classes if name not in content]
    if missing:
        raise UsageError(f"prompts={path}: has no prompt for {', '.join(missing)}")
    return {name: _sides(path, name, content[name]) for name in classes}


def check_prompts(prompts: str) -> None:
    """Check what can be checked of the setting `prompts` before the classes are known.

    Raises:
        UsageError: it names a file that can't be read, or whose prompts can't be used for any class.
    """
    if prompts not in (TEMPLATE, GENERATED):
        for name, value in _read_object(prompts, "Edema").items():
            _sides(prompts, name, value)


def _read_object(path: str, example: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"prompts={path}: can't be read ({error.strerror}); give a JSON file, {TEMPLATE} or {GENERATED}"
        ) from None
    except ValueError as error:
        raise UsageError(f"prompts={path} is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise UsageError(f'prompts={path}: must be {{"{example}": ["prompt", ...], ...}}')
    return content


def _sides(path: str, name: str, value: Any) -> dict[str, list[str]]:
    sides: Mapping[str, Any] = value if isinstance(value, dict) else {"positive": value}
    for side in sides:
        if side not in SIDES:
            raise UsageError(
                f"prompts={path}: {name} has {side!r}{nearest(side, SIDES) or '; must be positive or negative'}"
            )
    if "positive" not in sides:
        raise UsageError(f"prompts={path}: {name} has no positive prompt")
    for side, prompts in sides.items():
        good = isinstance(prompts, list) and all(isinstance(text, str) and text.strip() for text in prompts)
        if not good or not prompts:
            raise UsageError(f"prompts={path}: {side} of {name} must be a list of one prompt or more, each a sentence")
    return {side: list(prompts) for side, prompts in sides.items()}
