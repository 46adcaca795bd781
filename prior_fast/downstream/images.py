"""The images or masks of a labelled dataset, stored where the training device reads them without waiting."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from prior_fast.data.packing import to_device

# The share of a GPU's free memory that images may take; the rest is for the network.
GPU_SHARE = 0.5
CHUNK = 4096  # images copied to the GPU at once


class ResidentImages:
    """Rows of an array uint8 [N, 224, 224]. The whole array is on the GPU if half of its free memory holds it."""

    def __init__(self, array: np.ndarray, device: torch.device) -> None:
        self.array, self.device = array, device
        self.resident: Tensor | None = None
        if device.type == "cuda" and array.nbytes <= GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            self.resident = torch.empty(array.shape, dtype=torch.uint8, device=device)
            for first in range(0, len(array), CHUNK):
                part = torch.from_numpy(np.array(array[first : first + CHUNK]))
                self.resident[first : first + CHUNK].copy_(part)

    def take(self, rows: np.ndarray) -> Tensor:
        """uint8 [len(rows), 224, 224] on the device; rows int64."""
        if self.resident is not None:
            return self.resident.index_select(0, to_device(rows, self.device))
        return to_device(self.array[rows], self.device)


def as_images(pixels: Tensor) -> Tensor:
    """uint8 [B, 224, 224] -> float32 [B, 1, 224, 224] in [0, 1], channels last in memory on a GPU."""
    images = pixels[:, None].float() / 255
    return images.contiguous(memory_format=torch.channels_last) if images.is_cuda else images


def epoch_order(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The training rows in the order of an epoch, which depends only on the seed and the epoch."""
    return rows[np.random.default_rng([seed, epoch]).permutation(len(rows))]


def batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`rows` cut into batches; the last may be smaller."""
    return (rows[first : first + size] for first in range(0, len(rows), size))


def draw_flips(count: int, seed: int, step: int) -> np.ndarray:
    """Which images of a step are mirrored: bool [count], each with probability 1/2."""
    return np.random.default_rng([seed, 1, step]).random(count) < 0.5


def mirror(pixels: Tensor, flips: np.ndarray) -> Tensor:
    """Images or masks [B, 224, 224], mirrored left to right where `flips` is true."""
    chosen = to_device(flips, pixels.device)
    return torch.where(chosen[:, None, None], pixels.flip(-1), pixels)
