"""A convolution whose channels are padded to the tile size of tensor cores."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 64  # channels of the smallest tile of cuDNN's fast kernels


class PaddedConv2d(nn.Conv2d):
    """A convolution that pads 33 to 63 channels with zeros to 64 when it is compiled on a GPU.

    Forward and backward at 224x224 and batch 128, cuDNN takes 3.69 ms with 48 channels and 2.72 ms with 64 (H200;
    bench/results/nvidia-h200/convolution-forms.json). Padding 96 channels to 128 is slower: 1.88 instead of 1.67 ms.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, h', w']."""
        return self.compiled_forward(x) if torch.compiler.is_compiling() and x.is_cuda else super().forward(x)

    def compiled_forward(self, x: Tensor) -> Tensor:
        """The same function in the form for GPUs, which torch.compile fuses."""
        more_in, more_out = (TILE - n if TILE // 2 < n < TILE else 0 for n in (self.in_channels, self.out_channels))
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
        # Pad with the channels innermost, as in memory, so that the gradients have this layout too.
        x = F.pad(x.permute(0, 2, 3, 1), (0, more_in)).permute(0, 3, 1, 2)
        wide = F.conv2d(x, weight, None, self.stride, self.padding, self.dilation)
        kept = wide.permute(0, 2, 3, 1)[..., : self.out_channels].permute(0, 3, 1, 2)
        return kept if self.bias is None else kept + self.bias.to(kept.dtype)[:, None, None]
