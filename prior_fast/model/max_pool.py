"""ResNet's max-pooling, with a gradient that torch.compile can fuse on GPUs."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HalvingMaxPool2d(nn.MaxPool2d):
    """3x3 maxima at every second pixel, padding 1: [B, C, h, w] -> [B, C, ceil(h / 2), ceil(w / 2)].

    In a compiled step on a GPU the backward pass gathers the gradient. torch.compile's own backward pass scatters it by
    atomic additions, with the channels outermost, and then converts it to the layout of the convolutions.
    """

    def __init__(self) -> None:
        super().__init__(kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and x.is_cuda:
            return gathered_max_pool(x)
        return super().forward(x)


def gathered_max_pool(x: Tensor) -> Tensor:
    """The same function [B, C, h, w] -> [B, C, ceil(h / 2), ceil(w / 2)], with a pointwise backward pass."""
    return _GatheredMaxPool.apply(x)


class _GatheredMaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        maxima, index = F.max_pool2d(x, kernel_size=3, stride=2, padding=1, return_indices=True)
        ctx.size = x.shape[2:]
        # The position of each maximum in its window, 0 to 8.
        top, left = (2 * torch.arange(n, device=x.device) - 1 for n in maxima.shape[2:])
        place = 3 * (index // x.shape[3] - top[:, None]) + index % x.shape[3] - left
        ctx.save_for_backward(place.to(torch.int8))
        return maxima

    @staticmethod
    def backward(ctx: Any, dmaxima: Tensor) -> Tensor:
        (place,) = ctx.saved_tensors
        place, dmaxima = place.permute(0, 2, 3, 1), dmaxima.permute(0, 2, 3, 1)
        # Pixel (2k + a, 2m + b) is in the windows (k + i, m + j) with i <= a and j <= b.
        odd = torch.arange(2, device=place.device)
        k, m = (torch.arange(n, device=place.device) for n in place.shape[1:3])
        total: Tensor | float = 0.0
        for i in (0, 1):
            for j in (0, 1):
                row, column = odd[:, None, None, None] + 1 - 2 * i, odd[:, None] + 1 - 2 * j
                there = (k[:, None, None, None, None] + i < len(k)) & (m[:, None, None] + j < len(m))
                there = there & (row >= 0) & (column >= 0)
                # Indexing shifts without a copy in memory; padding would write one.
                rows, columns = (k + i).clamp(max=len(k) - 1)[:, None], (m + j).clamp(max=len(m) - 1)
                here = place[:, rows, columns][:, :, None, :, None] == 3 * row + column
                total = total + torch.where(here & there, dmaxima[:, rows, columns][:, :, None, :, None], 0)
        assert isinstance(total, Tensor)
        height, width = ctx.size
        return total.flatten(3, 4).flatten(1, 2)[:, :height, :width].permute(0, 3, 1, 2)
