"""A figure beside its chance level and beside other figures, and whether it is better than chance."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEVIATIONS = 2  # standard deviations above chance from which a value counts as better than chance


@dataclass(frozen=True)
class Figure:
    """A measured figure; greater is better.

    Attributes:
        key: its name in files.
        name: its name in tables and sentences.
        value: None if it can't be computed.
        chance: its chance level.
        noise: the standard deviation of the value by chance; 0 if it is not known.
        beside: what it is compared with besides chance, by name.
        control: the name of the one in `beside` that it must exceed, as it must exceed chance; "" for none.
    """

    key: str
    name: str
    value: float | None
    chance: float
    noise: float = 0.0
    beside: Mapping[str, float | None] = field(default_factory=dict)
    control: str = ""

    @property
    def problem(self) -> str:
        """What the value does not exceed; "" if it exceeds chance and the control."""
        if self.value is None:
            return "not defined"
        if self.value <= self.chance + DEVIATIONS * self.noise:
            return "no better than chance"
        control = self.beside.get(self.control)
        return f"no better than {self.control}" if control is not None and self.value <= control else ""

    def comparisons(self) -> str:
        """What the value is compared with, chance first: "(chance 0.20; with labels 0.98)"."""
        there = {"chance": self.chance, **self.beside}
        return f"({'; '.join(f'{name} {shown(value)}' for name, value in there.items() if value is not None)})"

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "key": self.key,
            "name": self.name,
            "value": self.value,
            "chance": self.chance,
            "beside": dict(self.beside),
            "open": self.problem,
        }


def shown(value: float | None, decimals: int = 2) -> str:
    """The value as text; "-" if there is none."""
    return "-" if value is None else f"{value:.{decimals}f}"


def noise_of_share(chance: float, count: int) -> float:
    """The standard deviation of a share of `count` independent trials with the probability `chance`."""
    return math.sqrt(chance * (1 - chance) / count) if count else 0.0


def noise_of_auroc(positive: int, negative: int) -> float:
    """The standard deviation of the AUROC of random scores (the Mann-Whitney statistic without ties)."""
    return math.sqrt((positive + negative + 1) / (12 * positive * negative)) if positive and negative else 0.0


def noise_of_f1(chance_precision: float, predicted: int, true: int) -> float:
    """The standard deviation of F1 if each of the `predicted` items is right with the probability `chance_precision`.

    F1 is 2 hits / (predicted + true), so its deviation is that of the hits times 2 / (predicted + true).
    """
    hits = math.sqrt(predicted * chance_precision * (1 - chance_precision))
    return 2 * hits / (predicted + true) if predicted + true else 0.0
