"""What a fine-tuned task has to bring: the loop in `finetune` knows nothing else of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

Table = tuple[Sequence[str], list[Sequence[Any]]]


@dataclass(frozen=True)
class Measured:
    """Metrics of a part of a split.

    Attributes:
        values: by name; None where a metric is undefined.
        notes: for each undefined metric, or one that leaves something out, why.
    """

    values: dict[str, float | None]
    notes: dict[str, str] = field(default_factory=dict)


class Task(Protocol):
    """A task on one dataset, for all of its splits.

    Attributes:
        selects: the metric whose highest validation value chooses the weights that are tested.
    """

    selects: str

    def check_training(self, rows: np.ndarray, part: str) -> list[str]:
        """Notes on what the training rows lack; UsageError where nothing can be learnt from them.

        part: words for where the rows come from.
        """

    def check_validation(self, rows: np.ndarray, part: str) -> None:
        """UsageError where the validation rows can't choose weights."""

    def build(self) -> tuple[nn.Module, list[nn.Module]]:
        """The network as it is before training, always the same, on the CPU, and those of its modules not trained."""

    def loss(self, model: nn.Module, rows: np.ndarray, flips: np.ndarray | None) -> Tensor:
        """The loss [] of a batch of rows, mirrored where `flips` says so."""

    def predict(self, model: nn.Module, rows: np.ndarray) -> Any:
        """What the model, in evaluation mode, says of the rows; on the host."""

    def measure(self, predictions: Any, rows: np.ndarray) -> Measured:
        """The metrics of predictions; "loss", if there, is for choosing where `selects` is undefined."""

    def table(self, predictions: Any, rows: np.ndarray) -> Table:
        """The predictions as predictions.csv: a header and its lines."""

    def draw(self, model: nn.Module, predictions: Any, rows: np.ndarray, folder: Path) -> None:
        """A picture of the predictions, as a file in `folder`."""

    def facts(self) -> dict[str, Any]:
        """What metrics.json says of the protocol, beside the settings."""
