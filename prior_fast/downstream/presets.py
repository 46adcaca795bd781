"""Learning rate, epochs and batch size of each fine-tuned task by dataset and share of the training images."""

from dataclasses import dataclass
from typing import Literal

Source = Literal["supplement", "our choice"]
OURS: Source = "our choice"


@dataclass(frozen=True)
class Preset:
    """One cell of the supplement's Tables 1 and 2.

    Attributes:
        source: "supplement", or "our choice" where the tables have no such cell or it can't be read whole.
    """

    learning_rate: float
    epochs: int
    batch_size: int
    source: Source = "supplement"


# By task, dataset and percent. Table 1: classification; Table 2: segmentation and detection.
TABLES: dict[str, dict[str, dict[int, Preset]]] = {
    "classification": {
        "rsna": {100: Preset(1e-4, 5, 64), 10: Preset(1e-4, 5, 64), 1: Preset(1e-4, 10, 64)},
        "siim": {100: Preset(1e-5, 5, 64), 10: Preset(1e-5, 20, 64), 1: Preset(1e-4, 20, 64)},
        "chexpert": {100: Preset(1e-6, 5, 256), 10: Preset(1e-5, 5, 256), 1: Preset(1e-4, 5, 256)},
    },
    "segmentation": {
        "siim": {100: Preset(1e-3, 50, 128), 10: Preset(1e-4, 50, 128), 1: Preset(1e-4, 100, 16)},
    },
    "detection": {
        # The table gives no epochs for 100 %: those of 10 % are taken.
        "rsna": {100: Preset(5e-5, 20, 16, OURS), 10: Preset(1e-4, 20, 16), 1: Preset(1e-4, 5, 16)},
    },
}
# The dataset whose cells serve for those that the tables do not have.
FALLBACK = {"classification": "rsna", "segmentation": "siim", "detection": "rsna"}


def find_preset(task: str, dataset: str, percent: int) -> Preset:
    """The cell for a task ("classification", "segmentation", "detection"), a dataset's name and 1, 10 or 100 percent.

    Datasets that the tables do not have take the cells of `FALLBACK`, marked as our choice.
    """
    table = TABLES[task]
    if dataset in table:
        return table[dataset][percent]
    cell = table[FALLBACK[task]][percent]
    return Preset(cell.learning_rate, cell.epochs, cell.batch_size, OURS)
