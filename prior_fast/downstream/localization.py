"""The common part of segmentation and detection: images with annotations, which are masks or boxes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.downstream.images import ResidentImages
from prior_fast.downstream.pretrained import Pretrained
from prior_fast.downstream.targets import require_positives


class LocalizationTask(ABC):
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
        config: Any,
        device: torch.device,
        used: np.ndarray,
    ) -> None:
        """
        Args:
            config: the config of the task.
            used: the rows of all splits that will be asked for: their annotations are read once.

        Raises:
            UsageError: the dataset has no such annotations.
        """
        self.pretrained, self.config, self.device = pretrained, config, device
        self.image_ids = dataset.image_ids
        self.images = ResidentImages(dataset.images, device)
        self.present = np.zeros(len(dataset), bool)
        self.present[used] = self.read_annotations(dataset, used)

    @abstractmethod
    def read_annotations(self, dataset: LabelledDataset, used: np.ndarray) -> Sequence[bool]:
        """Keep the annotations of the rows `used`; for each of them whether it has one."""

    def check_training(self, rows: np.ndarray, part: str) -> list[str]:
        """Raise UsageError if no image is annotated."""
        require_positives(self.present[rows], part, self.marked)
        return []

    def check_validation(self, rows: np.ndarray, part: str) -> None:
        """Raise UsageError if no image is annotated: the metric that chooses weights is undefined then."""
        self.check_training(rows, part)
