"""Normalization of the model's input images."""

from torch import Tensor


def normalize(images: Tensor, mean: float, std: float) -> Tensor:
    """Z-scores of images in [0, 1] (supplement 2.1)."""
    return (images - mean) / std
