"""Supervised classification: the encoder, a pool, one fully-connected layer, binary cross-entropy (supplement 3.1).

The supplement does not name the pool. The default is the average: the authors publish the encoder alone
(`prior_resnet50.pt`), without the attention pool and with the parameter names of torchvision, whose ResNet averages.
The bias of the linear layer starts at 0; its weights have torch's default initialization.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.data.labelled_dataset import LabelledDataset
from prior_fast.data.packing import to_device
from prior_fast.downstream.backbone import freeze, frozen_parts
from prior_fast.downstream.images import ResidentImages, as_images, batches, mirror
from prior_fast.downstream.metrics.multilabel import multilabel_metrics
from prior_fast.downstream.pretrained import Pretrained
from prior_fast.downstream.settings.classification import ClassificationConfig
from prior_fast.downstream.targets import choose_classes, class_truth, require_positives
from prior_fast.downstream.task import Advance, Measured, Table, no_advance, refuse_odd
from prior_fast.errors import UsageError
from prior_fast.model.image_encoder import AttentionPool2d, ImageEncoder
from prior_fast.plotting.roc import draw_roc
from prior_fast.radiology.labels import UNCERTAIN_IS_POSITIVE
from prior_fast.radiology.normalize import normalize


class Classifier(nn.Module):
    """The encoder with a pool and one fully-connected layer.

    pool: "average" or "attention", the pre-trained pool.
    """

    def __init__(self, encoder: ImageEncoder, pool: str, classes: int) -> None:
        super().__init__()
        self.encoder = encoder.encoder
        self.pool: AttentionPool2d | None = encoder.atten_pool if pool == "attention" else None
        self.head = nn.Linear(encoder.out_channels, classes)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 1, 224, 224] -> logits [B, classes]."""
        maps = self.encoder(images)
        return self.head(maps.mean(dim=(2, 3)) if self.pool is None else self.pool(maps))


class Classification:
    """`prior_fast.downstream.task.Task` for labels.

    used: ignored, because all labels are in memory.

    Raises:
        UsageError: the dataset lacks a class, or the encoder has fewer stages than `blocks` or no attention pool.
    """

    selects = "auroc"

    def __init__(
        self,
        dataset: LabelledDataset,
        pretrained: Pretrained,
        config: ClassificationConfig,
        device: torch.device,
        used: np.ndarray,
    ) -> None:
        self.pretrained, self.config, self.device = pretrained, config, device
        if config.pool == "attention" and not pretrained.has_pool:
            raise UsageError(f"pool=attention: {pretrained.path} has no attention pool; use pool=average")
        stages = len(pretrained.image.depths)
        if stages < config.blocks < 4:
            raise UsageError(f"blocks={config.blocks}: the encoder has {stages} stages; 4 trains all of them")
        self.classes: Sequence[str] = choose_classes(dataset, config.classes)
        self.truth = class_truth(dataset, self.classes)
        self.image_ids = dataset.image_ids
        self.labels = to_device(self.truth.astype(np.float32), device)
        self.images = ResidentImages(dataset.images, device)

    def check_training(self, rows: np.ndarray, part: str) -> list[str]:
        """Notes on classes with only one label value. Raises UsageError if all labels are negative or all positive."""
        truth = self.truth[rows]
        require_positives(truth, part, " or ".join(self.classes))
        if truth.all():
            raise UsageError(f"all images of {part} have {' and '.join(self.classes)}: there is no negative image")
        mixed = truth.any(axis=0) & ~truth.all(axis=0)
        return [f"{part}: all images are alike in {name}" for name, both in zip(self.classes, mixed) if not both]

    def check_validation(self, rows: np.ndarray, part: str) -> None:
        """Accept all rows: if AUROC is undefined, the loss chooses the weights."""

    def build(self) -> tuple[nn.Module, list[nn.Module]]:
        """The classifier and its frozen stages."""
        encoder = self.pretrained.load(self.config.weights, self.config.seed)
        torch.manual_seed(self.config.seed)
        model = Classifier(encoder, self.config.pool, len(self.classes))
        frozen = frozen_parts(model.encoder, self.config.blocks)
        if self.config.blocks == 0 and model.pool is not None:
            frozen.append(model.pool)
        freeze(frozen)
        return model, frozen

    def loss(self, model: nn.Module, rows: np.ndarray, flips: np.ndarray | None) -> Tensor:
        """Binary cross-entropy, mean over images and classes."""
        labels = self.labels.index_select(0, to_device(rows, self.device))
        return F.binary_cross_entropy_with_logits(self._logits(model, rows, flips), labels)

    @torch.inference_mode()
    def predict(self, model: nn.Module, rows: np.ndarray, advance: Advance = no_advance) -> np.ndarray:
        """Logits float32 [len(rows), classes]."""
        parts = [torch.empty(0, len(self.classes), device=self.device)]
        for batch in batches(rows, self.config.batch_size):
            parts.append(self._logits(model, batch, None))
            advance(len(batch))
        return torch.cat(parts).cpu().numpy()

    def measure(self, predictions: np.ndarray, rows: np.ndarray) -> Measured:
        """`multilabel_metrics`; raises RunError if a prediction is not finite."""
        refuse_odd(bool(np.isfinite(predictions).all()))
        return multilabel_metrics(self.truth[rows], predictions, self.classes)

    def table(self, predictions: np.ndarray, rows: np.ndarray) -> Table:
        """Image, and for each class the truth and the probability."""
        header = ["image_id", *(f"{kind} {name}" for name in self.classes for kind in ("true", "probability"))]
        probabilities = 1 / (1 + np.exp(-predictions.astype(np.float64)))
        lines: list[Sequence[Any]] = []
        for row, values in zip(rows.tolist(), probabilities.tolist()):
            pairs = (x for true, value in zip(self.truth[row], values) for x in (int(true), f"{value:.6f}"))
            lines.append([self.image_ids[row], *pairs])
        return header, lines

    def draw(self, model: nn.Module, predictions: np.ndarray, rows: np.ndarray, folder: Path) -> None:
        """roc.png."""
        draw_roc(self.truth[rows], predictions, self.classes, folder / "roc.png")

    def facts(self) -> dict[str, Any]:
        """The classes and the rules."""
        return {
            "classes": list(self.classes),
            "labels": "blank is absent; uncertain is present for "
            f"{', '.join(sorted(UNCERTAIN_IS_POSITIVE))} and absent for others",
            "loss": "binary cross-entropy",
            "metrics": {
                "auroc": "area under the ROC curve, mean over the classes that have positive and negative images",
                "accuracy_at_0.5": "share of right answers at probability 0.5, mean over classes",
                "f1_at_0.5": "F1 at probability 0.5, mean over the classes that have positive images",
            },
        }

    def _logits(self, model: nn.Module, rows: np.ndarray, flips: np.ndarray | None) -> Tensor:
        pixels = self.images.take(rows)
        images = as_images(pixels if flips is None else mirror(pixels, flips))
        return model(normalize(images, self.pretrained.image_mean, self.pretrained.image_std)).float()


TASK = Classification
