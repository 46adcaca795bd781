"""What segmentation and detection have alike: images whose findings are marked, by masks or by boxes."""

from collections.abc import Sequence

import numpy as np
import torch

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.images import ResidentImages
from prior_fast.downstream.pretrained import Pretrained
from prior_fast.downstream.settings.base import FineTuneConfig
from prior_fast.downstream.targets import require_positives


class LocalizationTask:
    """The start of a `prior_fast.downstream.task.Task` for marked images.

    Attributes:
        marked: what a positive image has, in words.
        present: for each image of the dataset whether it has that: bool [N].
    """

    marked: str

    def __init__(
        self,
        dataset: LabelledDataset,
        pretrained: Pretrained,
        config: FineTuneConfig,
        device: torch.device,
        used: np.ndarray,
        positive: Sequence[bool],
    ) -> None:
        """
        Args:
            used: the rows of all splits that will be asked for.
            positive: for each of them whether it is marked.
        """
        self.pretrained, self.device = pretrained, device
        self.present = np.zeros(len(dataset), bool)
        self.present[used] = positive
        self.image_ids = dataset.image_ids
        self.images = ResidentImages(dataset.images, device)

    def check_training(self, rows: np.ndarray, part: str) -> list[str]:
        """UsageError where no image is marked."""
        require_positives(self.present[rows], part, self.marked)
        return []

    def check_validation(self, rows: np.ndarray, part: str) -> None:
        """UsageError where no image is marked: the metric that chooses weights is undefined then."""
        self.check_training(rows, part)
