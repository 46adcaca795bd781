"""The common part of segmentation and detection: images with annotations, which are masks or boxes."""

from collections.abc import Sequence

import numpy as np
import torch

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.images import ResidentImages
from prior_fast.downstream.pretrained import Pretrained
from prior_fast.downstream.settings.base import FineTuneConfig
from prior_fast.downstream.targets import require_positives


class LocalizationTask:
    """The base class of a `prior_fast.downstream.task.Task` for annotated images.

    Attributes:
        marked: the annotation of a positive image, in words.
        present: whether each image of the dataset is annotated: bool [N].
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
            used: the rows of all splits of the run.
            positive: whether each of these rows is annotated.
        """
        self.pretrained, self.device = pretrained, device
        self.present = np.zeros(len(dataset), bool)
        self.present[used] = positive
        self.image_ids = dataset.image_ids
        self.images = ResidentImages(dataset.images, device)

    def check_training(self, rows: np.ndarray, part: str) -> list[str]:
        """Raise UsageError if no image is annotated."""
        require_positives(self.present[rows], part, self.marked)
        return []

    def check_validation(self, rows: np.ndarray, part: str) -> None:
        """Raise UsageError if no image is annotated: the metric that chooses weights is undefined then."""
        self.check_training(rows, part)
