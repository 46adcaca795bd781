"""Augmentation of prepared images: rotation and flip of a whole batch at once."""

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(images: Tensor, angles: Tensor, flips: Tensor) -> Tensor:
    """Rotate about the center (bilinear, zero fill, as torchvision's RandomAffine) and mirror left and right.

    images uint8 [B, H, W]; angles [B] in degrees, clockwise; flips [B] bool, applied after the rotation
    -> [B, 1, H, W] float32 in [0, 1].
    """
    x = images[:, None].float() / 255
    radians = angles.deg2rad()
    sign = 1 - 2 * flips.float()
    cos, sin = radians.cos(), radians.sin()
    zero = torch.zeros_like(cos)
    # Maps an output position to the input position it is read from, so it holds the inverse of the rotation.
    matrix = torch.stack([cos * sign, sin, zero, -sin * sign, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def normalize(images: Tensor, mean: float, std: float) -> Tensor:
    """Z-scores of images in [0, 1] (supplement 2.1)."""
    return (images - mean) / std
