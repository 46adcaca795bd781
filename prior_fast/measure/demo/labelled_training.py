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


def learning_rate(step: int, share: float) -> float:
    """Linear warm-up times a cosine to zero; step counts from 0, share is the part of the training that is done."""
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * share))


def train_with_labels(
    config: RunConfig,
    dataset: PreparedDataset,
    device: torch.device,
    epochs: int = 0,
    seconds: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    advance: Callable[[float], object] = lambda share: None,
) -> Trained:
    """Train on a dataset's split with the loader, batch size, precision and augmentation of `config`.

    epochs: the length of the training; 0: it ends with the first step after `seconds`. The learning rate then follows
        the time, so that other work on the machine does not end the training early or with a high learning rate.
    advance: gets the share of the training that is done, after each step.

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
    started, steps, step, epoch = clock(), epochs * len(loader), 0, 0
    elapsed = share = 0.0
    while share < 1:
        for batch in loader.epoch(epoch):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, share)
            with autocast:
                logits = model(batch.to(device).images)
            rows = [row_of[study] for study in batch.study_ids.tolist()]
            loss = F.binary_cross_entropy_with_logits(logits.float(), targets[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            optimizer.step()
            step, elapsed = step + 1, clock() - started
            share = step / steps if steps else elapsed / seconds
            advance(min(share, 1.0))
            if share >= 1:
                break
        epoch += 1
    return Trained(model.eval(), step, step / len(loader), elapsed)
