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
        """[B, in, h, w] -> [B, out, h', w'].

        In the form for GPUs x may be padded already, to `padded(in)` channels.
        """
        return self.compiled_forward(x) if self.pads(x) else super().forward(x)

    def wide_forward(self, x: Tensor) -> Tensor:
        """Like `forward`, but in the form for GPUs the result has `padded(out)` channels, if there is no bias.

        Those from `out` on are padding. A layer that does not read them can save the gradient a pass over memory.
        """
        return self._wide(x) if self.pads(x) and self.bias is None else self(x)

    @staticmethod
    def pads(x: Tensor) -> bool:
        """Whether the form for GPUs is taken."""
        return torch.compiler.is_compiling() and x.is_cuda

    def compiled_forward(self, x: Tensor) -> Tensor:
        """The same function in the form for GPUs, which torch.compile fuses."""
        kept = self._wide(x).permute(0, 2, 3, 1)[..., : self.out_channels].permute(0, 3, 1, 2)
        return kept if self.bias is None else kept + self.bias.to(kept.dtype)[:, None, None]

    def _wide(self, x: Tensor) -> Tensor:
        """[B, in or padded(in), h, w] -> [B, padded(out), h', w'], without the bias."""
        more_in, more_out = (padded(n) - n for n in (self.in_channels, self.out_channels))
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
        if x.shape[1] == self.in_channels:
            # Pad with the channels innermost, as in memory, so that the gradients have this layout too.
            x = F.pad(x.permute(0, 2, 3, 1), (0, more_in)).permute(0, 3, 1, 2)
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation)


def padded(channels: int) -> int:
    """The number of channels that so many are padded to."""
    return TILE if TILE // 2 < channels < TILE else channels
