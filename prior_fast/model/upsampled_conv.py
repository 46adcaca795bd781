"""A 3x3 convolution of an image that is twice as large, without the larger image."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Up to so many output channels four small kernels are faster than a transposed convolution: forward and backward on an
# H200 at batch 128, 1.55 for 3.02 ms with 48 channels, 1.19 for 1.47 with 96, 0.98 for 1.06 with 192, and 0.99 for
# 0.93 with 384 (bench/results/nvidia-h200/convolution-forms.json).
FEW = 192


class UpsampledConv2d(nn.Conv2d):
    """A 3x3 convolution, padding 1, of the nearest x2 upsampling: [B, in, h, w] -> [B, out, 2h, 2w].

    Each pixel of the larger image is one of four copies, so the nine weights meet four different pixels: the same sums
    are a 4x4 transposed convolution of stride 2, with 2.25 times fewer multiplications and nothing upsampled in memory.
    Compiled on a GPU, few channels are made by a 2x2 convolution with four times as many of them, one set for each of
    the four copies. Parameters are those of the plain convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and x.is_cuda:
            return self.compiled_forward(x)
        return F.conv_transpose2d(x, upsampled_kernel(self.weight), self.bias, stride=2, padding=1)

    def compiled_forward(self, x: Tensor) -> Tensor:
        """The same function in the form for GPUs, for torch.compile to fuse."""
        if self.out_channels > FEW:
            return F.conv_transpose2d(x, upsampled_kernel(self.weight), self.bias, stride=2, padding=1)
        copies = F.conv2d(x, copies_kernel(self.weight), padding=1)
        larger = interleave(copies.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))).permute(0, 3, 1, 2)
        return larger if self.bias is None else larger + self.bias.to(larger.dtype)[:, None, None]


def upsampled_kernel(weight: Tensor) -> Tensor:
    """[out, in, 3, 3] -> [in, out, 4, 4]: the full convolution of the mirrored weights with 2x2 ones."""
    padded = F.pad(weight.flip(2, 3), (1, 1, 1, 1))
    kernel = padded[..., :4, :4] + padded[..., 1:, :4] + padded[..., :4, 1:] + padded[..., 1:, 1:]
    return kernel.transpose(0, 1)


def copies_kernel(weight: Tensor) -> Tensor:
    """[out, in, 3, 3] -> [4 out, in, 2, 2]: kernels of a pixel's upper left copy, of its upper right one, and so on.

    The upper copies see the row above and twice their own, the lower ones their own twice and the row below.
    """
    above, own, below = weight.unbind(2)
    rows = torch.stack([torch.stack([above, own + below], 2), torch.stack([above + own, below], 2)])
    left, own, right = rows.unbind(4)
    kernels = torch.stack([torch.stack([left, own + right], 4), torch.stack([left + own, right], 4)], 1)
    return kernels.flatten(0, 2)


def interleave(copies: Tensor) -> Tensor:
    """[B, h + 1, w + 1, 2, 2, C] -> [B, 2h, 2w, C]: pixel (2i + a, 2j + c) is copies[:, i + a, j + c, a, c]."""
    return _Interleave.apply(copies)


class _Interleave(torch.autograd.Function):
    """By indices both ways, which torch.compile fuses with what comes before and after; stacking would copy."""

    @staticmethod
    def forward(ctx: Any, copies: Tensor) -> Tensor:
        row, column = (torch.arange(2 * n - 2, device=copies.device) for n in copies.shape[1:3])
        row = row[:, None]
        return copies[:, (row + 1) // 2, (column + 1) // 2, row % 2, column % 2]

    @staticmethod
    def backward(ctx: Any, dlarger: Tensor) -> Tensor:
        height, width = dlarger.shape[1:3]
        i, j = (torch.arange(n // 2 + 1, device=dlarger.device) for n in (height, width))
        copy = torch.arange(2, device=dlarger.device)
        row, column = 2 * i[:, None, None, None] - copy[:, None], 2 * j[:, None, None] - copy
        # The copies of the rim that no pixel of the larger image is.
        there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        taken = dlarger[:, row.clamp(0, height - 1), column.clamp(0, width - 1)]
        return torch.where(there[..., None], taken, 0)
