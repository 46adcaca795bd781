"""Projections of images, patches, sentences and reports into the joint embedding space (supplement 2.2)."""

from typing import Literal

from torch import Tensor, nn


class RowNorm(nn.BatchNorm1d):
    """Batch normalization of rows with any leading dimensions: [..., C] -> [..., C]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).view(x.shape)


def projection(in_channels: int, out_channels: int, kind: Literal["mlp", "linear"]) -> nn.Module:
    """[..., in_channels] -> [..., out_channels].

    kind: "mlp" is SimSiam's projection head: two layers, each followed by batch normalization, which prevents a
        contrastive loss from collapsing early in training. The paper says only "MLP". "linear" is one layer (released).
        Linear weights start with a standard deviation of in_channels^-0.5.
    """
    first = _linear(in_channels, out_channels)
    if kind == "linear":
        return first
    hidden = [first, RowNorm(out_channels), nn.ReLU()]
    return nn.Sequential(*hidden, _linear(out_channels, out_channels), RowNorm(out_channels, affine=False))


def _linear(in_channels: int, out_channels: int) -> nn.Linear:
    layer = nn.Linear(in_channels, out_channels)
    nn.init.normal_(layer.weight, std=in_channels**-0.5)
    return layer
