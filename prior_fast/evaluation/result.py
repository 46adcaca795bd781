"""The result of an evaluation task, and the images and reports that it was computed on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prior_fast.evaluation.selection import Chosen


@dataclass(frozen=True)
class EvaluationSet:
    """The images of an evaluation, and the reports, if the task has any. `reports` is the same object as `images` if
    the reports are those of the images' studies."""

    images: Chosen
    reports: Chosen | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """The result of an evaluation task.

    Attributes:
        metrics: the metrics in metrics.json.
        table: rows of name, value and chance to print.
        header, predictions: predictions.csv, with a row for each image.
        facts: further entries of the protocol in metrics.json.
        pictures: for each file name the function that draws it.
    """

    metrics: dict[str, Any]
    table: list[tuple[str, str, str]]
    header: tuple[str, ...]
    predictions: list[tuple[Any, ...]]
    facts: dict[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


def table_row(name: str, value: dict[str, Any]) -> tuple[str, str, str]:
    """A metric as text: its name, its value (or why it has none), its chance level."""
    number = f"{value['value']:.3f}" if value["value"] is not None else f"none: {value['note']}"
    return name, number, f"{value['chance']:.3f}" if value["chance"] is not None else ""
