"""What a column of a table measures: the steps that it needs, and how its number is read from their results."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prior_fast.reproduce.plan import Planner
from prior_fast.reproduce.steps import Step


@dataclass(frozen=True)
class Value:
    """A number in percent over several runs: splits of a dataset, or draws of images.

    Attributes:
        mean: None if no run defines it.
        std: of a sample; None for fewer than two runs.
        runs: the number of runs that define it.
    """

    mean: float | None
    std: float | None
    runs: int

    def __str__(self) -> str:
        if self.mean is None:
            return "undefined"
        return f"{self.mean:.2f}" + ("" if self.std is None else f" ± {self.std:.2f}")


class Measure(Protocol):
    """A column's measure."""

    def plan(self, planner: Planner, variant: str) -> tuple[Step, ...]:
        """The steps that make the number of a model."""

    def read(self, steps: Sequence[Step]) -> Value:
        """The number from the finished steps."""


@dataclass(frozen=True)
class FineTuned:
    """A metric of a fine-tuned task, over the paper's splits of a dataset."""

    task: str
    dataset: str
    percent: int
    metric: str

    def plan(self, planner: Planner, variant: str) -> tuple[Step, ...]:
        return (planner.fine_tuned(variant, self.task, self.dataset, self.percent),)

    def read(self, steps: Sequence[Step]) -> Value:
        found = result(steps[0])["metrics"][self.metric]
        return Value(_percent(found["mean"]), _percent(found["std"]), found["splits"])


@dataclass(frozen=True)
class Drawn:
    """A metric of zero-shot classification or retrieval, over the draws of CheXpert 5x200.

    keys: the path to the metric in metrics.json, from `metrics` on.
    """

    task: str
    keys: tuple[str, ...]

    def plan(self, planner: Planner, variant: str) -> tuple[Step, ...]:
        return planner.drawn(variant, self.task)

    def read(self, steps: Sequence[Step]) -> Value:
        values = []
        for step in steps:
            found: Any = result(step)["metrics"]
            for key in self.keys:
                found = found.get(key, {})
            if found.get("value") is not None:
                values.append(found["value"])
        spread = statistics.stdev(values) if len(values) > 1 else None
        return Value(_percent(statistics.fmean(values)) if values else None, _percent(spread), len(values))


@dataclass(frozen=True)
class Blocks:
    """AUROC of classification with some number of trained blocks, over the paper's splits of a dataset."""

    dataset: str
    percent: int
    blocks: int

    def plan(self, planner: Planner, variant: str) -> tuple[Step, ...]:
        return (planner.swept(variant, self.dataset, self.percent),)

    def read(self, steps: Sequence[Step]) -> Value:
        for point in result(steps[0])["points"]:
            if point["blocks"] == self.blocks:
                return Value(_percent(point["mean"]), _percent(point["std"]), point["splits"])
        return Value(None, None, 0)


def result(step: Step) -> dict[str, Any]:
    """The content of a finished step's result file."""
    return json.loads((step.out / step.proof).read_text(encoding="utf-8"))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
