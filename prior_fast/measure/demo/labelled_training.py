"""Trains an image encoder with labels instead of reports, on the same batches: a ceiling for pre-training.

Letters in shapes: B images, C findings.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.config import RunConfig
from prior_fast.data.loader import LoaderConfig, TrainingLoader
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.model.image_encoder import ImageEncoder, load_resnet_weights
from prior_fast.radiology.labels import CHEXPERT_LABELS, FIVE_CLASSES
from prior_fast.training.step import make_autocast

FINDINGS = (*FIVE_CLASSES, "Pneumothorax")
# Ours, chosen on one made-up dataset.
LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 3e-3, 1e-4, 1.0
WARM_UP = 40  # steps
# The length of the run is estimated after TIMED steps, without the first UNTIMED: they allocate the memory.
TIMED, UNTIMED = 20, 3


@dataclass(frozen=True)
class Trained:
    """A trained classifier, and the steps and seconds that its training took."""

    model: "LabelClassifier"
    steps: int
    epochs: float
    seconds: float


class LabelClassifier(nn.Module):
    """The image encoder of a config, with its first weights, and a linear layer on its pooled vector.

    Raises:
        UsageError: the weights can't be loaded.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.encoder = ImageEncoder(config.model.image, config.model.layout)
        load_resnet_weights(self.encoder.encoder, config.model.image.weights)
        self.head = nn.Linear(self.encoder.out_channels, len(FINDINGS))
        self.to(memory_format=torch.channels_last)  # as in pre-training

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images [B, 1, 224, 224] -> logits [B, C] of the findings."""
        return self.head(self.encoder(images.contiguous(memory_format=torch.channels_last))[1])


def findings_shown(labels: np.ndarray) -> np.ndarray:
    """Which findings are shown: labels float32 [N, 14] of a prepared dataset -> bool [N, C].

    A label of 1 or -1 counts as shown. The made-up images show a finding also where the report is uncertain.
    """
    values = labels[:, [CHEXPERT_LABELS.index(name) for name in FINDINGS]]
    return (values == 1) | (values == -1)


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up times a cosine to zero; step counts from 0. Before the number of steps is known (0): no cosine."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return LEARNING_RATE * warm * (0.5 * (1 + math.cos(math.pi * step / steps)) if steps else 1.0)


def steps_in(seconds: float, marks: list[float]) -> int:
    """The steps that fit into `seconds`, from the times at which the steps up to now ended; marks[0] is the start."""
    per_step = (marks[-1] - marks[UNTIMED]) / (len(marks) - 1 - UNTIMED)
    left = seconds - (marks[-1] - marks[0])
    return len(marks) - 1 + max(0, math.floor(left / per_step))


def train_with_labels(
    config: RunConfig,
    dataset: PreparedDataset,
    device: torch.device,
    epochs: int = 0,
    seconds: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    advance: Callable[[int, int], object] = lambda step, steps: None,
) -> Trained:
    """Train on a dataset's split with the loader, batch size, precision and augmentation of `config`.

    epochs: the length of the training; 0: as many steps as fit into `seconds`, but at least `TIMED`.
    advance: gets the step and the number of steps (0: not known yet) after each step.

    Raises:
        UsageError: the split has fewer studies than a batch.
    """
    loader = TrainingLoader(dataset, LoaderConfig(config.data, config.batch_size, config.seed), device)
    targets = torch.from_numpy(findings_shown(dataset.labels)).float().to(device)
    row_of = {study: row for row, study in enumerate(dataset.study_ids.tolist())}
    torch.manual_seed(config.seed)
    model = LabelClassifier(config).to(device).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, weight_decay=WEIGHT_DECAY, fused=True)
    autocast = make_autocast(config.precision, device)
    steps, epoch, marks = epochs * len(loader), 0, [clock()]
    while not steps or len(marks) <= steps:
        for batch in loader.epoch(epoch):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(len(marks) - 1, steps)
            with autocast:
                logits = model(batch.to(device).images)
            rows = [row_of[study] for study in batch.study_ids.tolist()]
            loss = F.binary_cross_entropy_with_logits(logits.float(), targets[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            optimizer.step()
            marks.append(clock())
            if not steps and len(marks) > TIMED:
                steps = steps_in(seconds, marks)
            advance(len(marks) - 1, steps)
            if steps and len(marks) > steps:
                break
        epoch += 1
    done = len(marks) - 1
    return Trained(model.eval(), done, done / len(loader), marks[-1] - marks[0])
