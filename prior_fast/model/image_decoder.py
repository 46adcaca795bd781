"""The image decoder of conditional reconstruction: five x2 blocks from a 7x7 map to 224x224 (supplement 2.3)."""

from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.model.known_moments import normalize_known, wants_moments
from prior_fast.model.narrow_conv import NarrowConv2d
from prior_fast.model.padded_conv import PaddedConv2d
from prior_fast.model.precision import widen
from prior_fast.model.rectified_norm import norm_relu, relu_norm
from prior_fast.model.upsampled_conv import UpsampledConv2d


class DecoderBlock(nn.Module):
    """Nearest-neighbour x2 upsampling (released), then two 3x3 convolutions, each with ReLU and batch normalization."""

    def __init__(self, in_channels: int, out_channels: int, norm: Literal["after_relu", "before_relu"]) -> None:
        super().__init__()
        self.conv1 = _NormalizedConv(UpsampledConv2d(in_channels, out_channels, bias=False), norm)
        self.conv2 = _NormalizedConv(PaddedConv2d(out_channels, out_channels, 3, padding=1, bias=False), norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, 2h, 2w]."""
        return self.conv2(self.conv1(x))


class _NormalizedConv(nn.Sequential):
    """A convolution, ReLU and batch normalization, which is numbered by its place.

    In training, the kernels of an upsampled convolution also compute the ReLU and the moments of the normalization.
    """

    def __init__(self, convolution: nn.Conv2d, norm: Literal["after_relu", "before_relu"]) -> None:
        layers: list[nn.Module] = [nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]
        self.norm_first = norm == "before_relu"
        super().__init__(convolution, *(layers if self.norm_first else reversed(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, h, w] -> [B, out, h, w]."""
        convolution, norm = self[0], cast(nn.BatchNorm2d, self[1 if self.norm_first else 2])
        # Not of a subclass, which may compute the result in another way.
        if type(convolution) is UpsampledConv2d and wants_moments(norm) and convolution.has_kernels(x):
            y, moments = convolution.with_moments(x, relu=not self.norm_first)
            y = normalize_known(norm, y, moments)
            return F.relu(y, inplace=True) if self.norm_first else y
        x = convolution(x)
        return norm_relu(norm, x) if self.norm_first else relu_norm(norm, x)


class ImageDecoder(nn.Module):
    """Reconstructs the image from its masked embedding and the text's context.

    norm: batch normalization after the ReLU (supplement 2.3), or before it (released).
    blocks, width: see `decoder_widths`; each block doubles the side.
    """

    def __init__(
        self, channels: int, norm: Literal["after_relu", "before_relu"], blocks: int = 5, width: int = 0
    ) -> None:
        super().__init__()
        widths = decoder_widths(channels, blocks, width)
        self.blocks = nn.ModuleList(DecoderBlock(a, b, norm) for a, b in pairwise(widths))
        self.output_head = nn.Sequential(NarrowConv2d(widths[-1], 1, 3))

    def forward(self, image_map: Tensor, text_map: Tensor) -> Tensor:
        """image_map, text_map [B, D, 7, 7] -> [B, 1, h, h] with h = 7 * 2^blocks; 224 for five blocks."""
        x = torch.cat([image_map, text_map], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.output_head(x)


def decoder_widths(channels: int, blocks: int, width: int = 0) -> list[int]:
    """The channels of the decoder's input and after each block: the first makes `width`, the others halve.

    width: 0 is half of the input's.
    """
    return [channels, *((width or channels >> 1) >> block for block in range(blocks))]


def reconstruction_loss(output: Tensor, image: Tensor) -> Tensor:
    """Mean absolute difference [] of the output and the image, which is resized to the output's size if needed."""
    if image.shape[2:] != output.shape[2:]:
        image = F.interpolate(image, size=output.shape[2:], mode="bilinear", align_corners=True)
    return F.l1_loss(widen(output), widen(image))
