"""A 3x3 convolution of an upsampled image, without storing the upsampled image."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.ops.common.triton import triton_unavailable
from prior_fast.ops.upsampled_conv import upsampled_conv, upsampled_kernel

BACKENDS = ("cudnn", "triton")


class UpsampledConv2d(nn.Conv2d):
    """A 3x3 convolution, padding 1, after nearest-neighbour x2 upsampling: [B, in, h, w] -> [B, out, 2h, 2w].

    Each pixel of the larger image is one of four copies, so the nine weights multiply only four different pixels. A 4x4
    transposed convolution of stride 2 computes the same sums with 2.25 times fewer multiplications and no upsampled
    image in memory. The parameters are those of the plain convolution.

    A 2x2 convolution with four times the output channels, one set for each copy, was slower on an H200 at batch 128.
    The convolution alone is faster (1.55 instead of 3.02 ms for 96 to 48 channels, 1.19 instead of 1.47 for 192 to 96),
    but its result must be interleaved, and torch.compile's reductions over interleaved pixels took 10.7 ms more.

    Attributes:
        backend: "cudnn": torch's transposed convolution; "triton": the kernels of `prior_fast.ops.upsampled_conv` where
            they can serve, else torch's. The kernels also compute what batch normalization needs (`with_moments`). It
            is no part of the weights: a new or copied-in state keeps it.
    """

    backend = "cudnn"

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.has_kernels(x):
            y = self._by_kernels(x)
            assert isinstance(y, Tensor)
            return y
        return F.conv_transpose2d(x, upsampled_kernel(self.weight), self.bias, stride=2, padding=1)

    def has_kernels(self, x: Tensor) -> bool:
        """Whether the kernels serve `x`."""
        return self.backend == "triton" and triton_unavailable(x) is None

    def with_moments(self, x: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
        """The result, and mean and biased variance [2, out] float32 of its channels; for x with `has_kernels`.

        relu: whether to set negative numbers of the result to 0; the moments are those after it.
        """
        y, moments = self._by_kernels(x, relu=relu, moments=True)
        return y, moments

    def _by_kernels(self, x: Tensor, **options: bool) -> Tensor | tuple[Tensor, Tensor]:
        # The op does not know autocast, under which torch's convolution makes its operands narrow.
        half = torch.is_autocast_enabled(x.device.type)
        dtype = torch.get_autocast_dtype(x.device.type) if half else self.weight.dtype
        return upsampled_conv(x.to(dtype), self.weight, self.bias, backend="triton", **options)
