"""A convolution to one or two channels, in a form that is fast on GPUs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EIGHT = 8  # bfloat16 numbers in 16 bytes, the unit of loads for tensor cores


class NarrowConv2d(nn.Conv2d):
    """A convolution of odd kernel size, stride 1 and zero padding that keeps the size, for few output channels.

    Compiled on a GPU it is a matrix product, which computes each pixel's share of all pixels around it, and a sum of
    the shifted shares. cuDNN uses tensor cores for eight output channels or more. With eight it takes 3.31 ms forward
    and backward for 48 channels of 224x224 at batch 128 (H200; bench/results/nvidia-h200/convolution-forms.json).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, h, w]."""
        return self.compiled_forward(x) if torch.compiler.is_compiling() and x.is_cuda else super().forward(x)

    def compiled_forward(self, x: Tensor) -> Tensor:
        """The same function in the form for GPUs, which torch.compile fuses."""
        batch, channels, height, width = x.shape
        size = self.kernel_size[0]
        taps = self.weight.permute(2, 3, 0, 1).reshape(-1, channels)  # [size size out, in]
        taps = F.pad(taps, (0, 0, 0, -len(taps) % EIGHT))
        # Pixels innermost, so that the sum reads contiguous memory.
        shares = taps @ x.permute(0, 2, 3, 1).reshape(-1, channels).T
        shares = shares[: size * size * self.out_channels].view(size, size, self.out_channels, batch, height, width)
        dtype, shares = shares.dtype, shares.to(torch.promote_types(shares.dtype, torch.float32))
        total: Tensor | float = 0.0
        for row in range(size):
            for column in range(size):
                down, right = size // 2 - row, size // 2 - column
                total = total + F.pad(shares[row, column], (right, -right, down, -down))
        if self.bias is not None:
            total = total + self.bias[:, None, None, None]
        assert isinstance(total, Tensor)
        return total.to(dtype).transpose(0, 1)
