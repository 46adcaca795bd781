"""A step's noise: drawn as in the model, to compare losses, or as in plain code, to measure time."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from prior_fast.ops.common.philox import gumbel
from prior_fast.ops.common.precision import accumulation_dtype
from prior_fast.training.stages import StepContext, channel_mask

from .batch import PlainBatch


class Noise(Protocol):
    """The noise that a stage draws; streams are numbered as in `StepContext.noise_seed`."""

    def gumbel(self, stream: int, x: Tensor, prototypes: int) -> Tensor | None:
        """Noise [S, prototypes] for the rows of x [S, D]."""

    def channels(self, patches: Tensor, ratio: float, batch: PlainBatch) -> Tensor | None:
        """Factors [B, D] for the channels of patches [B, P, D]."""


class SameNoise:
    """Draws the same numbers as the model."""

    def __init__(self, step: StepContext) -> None:
        self.step = step

    def gumbel(self, stream: int, x: Tensor, prototypes: int) -> Tensor | None:
        seed = self.step.noise_seed(stream)
        if seed is None:
            return None
        return gumbel(seed, x.shape[0], prototypes, 0, x.device, accumulation_dtype(x))

    def channels(self, patches: Tensor, ratio: float, batch: PlainBatch) -> Tensor | None:
        return channel_mask(patches, ratio, batch.packed, self.step.noise_seed(1))


class TorchNoise:
    """Draws from torch's generators: a few calls. Numbers that depend only on the row's number take hundreds."""

    def gumbel(self, stream: int, x: Tensor, prototypes: int) -> Tensor | None:
        return -torch.empty(x.shape[0], prototypes, device=x.device, dtype=x.dtype).exponential_().log()

    def channels(self, patches: Tensor, ratio: float, batch: PlainBatch) -> Tensor | None:
        return F.dropout(patches.new_ones(patches.shape[0], patches.shape[2]), ratio)
