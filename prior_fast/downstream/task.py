"""The interface of a fine-tuned task, which is all that the loop in `finetune` uses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from prior_fast.downstream.pretrained import Pretrained
from prior_fast.errors import RunError

Table = tuple[Sequence[str], list[Sequence[Any]]]
Advance = Callable[[int], object]


def no_advance(count: int) -> None:
    """An `Advance` that shows no progress."""


def refuse_odd(finite: bool) -> None:
    """Raise RunError unless the predictions are `finite`: metrics of others would say nothing."""
    if not finite:
        raise RunError(
            "the network's predictions are not finite: start again with a lower learning_rate=... and another --out, "
            "since this folder keeps its settings"
        )


@dataclass(frozen=True)
class Measured:
    """Metrics of a part of a split.

    Attributes:
        values: by name; None where a metric is undefined.
        notes: the reason for each metric that is undefined or leaves something out.
    """

    values: dict[str, float | None]
    notes: dict[str, str] = field(default_factory=dict)


class Task(Protocol):
    """A task on one dataset, for all of its splits.

    Attributes:
        selects: the metric whose highest validation value chooses the weights that are tested.
        pretrained: the encoder that is fine-tuned, and the normalization of its images.
    """

    selects: str
    pretrained: Pretrained

    def check_training(self, rows: np.ndarray, part: str) -> list[str]:
        """Notes on what the training rows lack. Raises UsageError if nothing can be learnt from them.

        part: the name of the rows, for messages.
        """

    def check_validation(self, rows: np.ndarray, part: str) -> None:
        """Raise UsageError if the validation rows can't choose weights."""

    def build(self) -> tuple[nn.Module, list[nn.Module]]:
        """The network before training, always the same, on the CPU; and its modules that are not trained."""

    def loss(self, model: nn.Module, rows: np.ndarray, flips: np.ndarray | None) -> Tensor:
        """The loss [] of a batch of rows, mirrored where `flips` is true."""

    def predict(self, model: nn.Module, rows: np.ndarray, advance: Advance = no_advance) -> Any:
        """The predictions of the model, in evaluation mode, for the rows; on the host.

        advance: gets the number of rows after each batch.
        """

    def measure(self, predictions: Any, rows: np.ndarray) -> Measured:
        """The metrics of predictions; "loss", if present, chooses the weights where `selects` is undefined."""

    def table(self, predictions: Any, rows: np.ndarray) -> Table:
        """The predictions as predictions.csv: a header and its lines."""

    def draw(self, model: nn.Module, predictions: Any, rows: np.ndarray, folder: Path) -> None:
        """Draw a picture of the predictions, as a file in `folder`."""

    def facts(self) -> dict[str, Any]:
        """The entries of the protocol in metrics.json, besides the settings."""
