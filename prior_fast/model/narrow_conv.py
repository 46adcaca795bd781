"""A convolution to a single channel, as GPUs want it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST = 8  # output channels: below, there are no 16-byte rows for the tensor cores


class NarrowConv2d(nn.Conv2d):
    """A convolution to fewer than eight channels; compiled on a GPU it makes eight, the others with weights of zero.

    For an output of one channel torch.compile can't tell the layouts apart and copies the input to one that is neither.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and x.is_cuda:
            return widened_conv(x, self)
        return super().forward(x)


def widened_conv(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """`layer` of x [B, in, h, w], with eight output channels of which the first are kept: [B, out, h, w]."""
    weight = F.pad(layer.weight, (0, 0, 0, 0, 0, 0, 0, LEAST - layer.out_channels))
    wide = F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    # Cut with the channels innermost, as they lie: so does the gradient then.
    kept = wide.permute(0, 2, 3, 1)[..., : layer.out_channels]
    return (kept if layer.bias is None else kept + layer.bias.to(kept.dtype)).permute(0, 3, 1, 2)
