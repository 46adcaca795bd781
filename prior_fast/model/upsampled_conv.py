"""A 3x3 convolution of an image that is twice as large, without the larger image."""

from torch import Tensor, nn
from torch.nn import functional as F


class UpsampledConv2d(nn.Conv2d):
    """A 3x3 convolution, padding 1, of the nearest x2 upsampling: [B, in, h, w] -> [B, out, 2h, 2w].

    Each pixel of the larger image is one of four copies, so the nine weights meet four different pixels: the same sums
    are a 4x4 transposed convolution of stride 2, with 2.25 times fewer multiplications and nothing upsampled in memory.
    Parameters are those of the plain convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, upsampled_kernel(self.weight), self.bias, stride=2, padding=1)


def upsampled_kernel(weight: Tensor) -> Tensor:
    """[out, in, 3, 3] -> [in, out, 4, 4]: the full convolution of the mirrored weights with 2x2 ones."""
    padded = F.pad(weight.flip(2, 3), (1, 1, 1, 1))
    kernel = padded[..., :4, :4] + padded[..., 1:, :4] + padded[..., :4, 1:] + padded[..., 1:, 1:]
    return kernel.transpose(0, 1)
