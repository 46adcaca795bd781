"""Projections of images, patches, sentences and reports into the joint embedding space (supplement 2.2)."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F


class RowNorm(nn.BatchNorm1d):
    """Batch normalization of rows with any leading dimensions: [..., C] -> [..., C]."""

    def forward(self, x: Tensor, tracked: bool = True) -> Tensor:
        """tracked: whether training updates the running statistics with those of x."""
        rows = x.flatten(0, -2)
        if tracked or not self.training:
            return super().forward(rows).view(x.shape)
        return F.batch_norm(rows, None, None, self.weight, self.bias, training=True, eps=self.eps).view(x.shape)


class ProjectionHead(nn.Sequential):
    """SimSiam's projection head: two layers, each followed by batch normalization: [..., C] -> [..., D]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            _linear(in_channels, out_channels),
            RowNorm(out_channels),
            nn.ReLU(),
            _linear(out_channels, out_channels),
            RowNorm(out_channels, affine=False),
        )

    def forward(self, x: Tensor, tracked: bool = True) -> Tensor:
        """tracked: whether training updates the running statistics with those of x."""
        linear1, norm1, relu, linear2, norm2 = self
        return norm2(linear2(relu(norm1(linear1(x), tracked))), tracked)


class NoProjection(nn.Identity):
    """The report's vector as it is: the released code has no projection of it."""

    def forward(self, x: Tensor, tracked: bool = True) -> Tensor:
        """Returns x."""
        return x


def projection(in_channels: int, out_channels: int, kind: Literal["mlp", "linear"]) -> nn.Module:
    """[..., in_channels] -> [..., out_channels].

    kind: "mlp" is SimSiam's projection head. Its batch normalization prevents a contrastive loss from collapsing early
        in training; the paper says only "MLP". "linear" is one layer (released).
    Linear weights start with a standard deviation of in_channels^-0.5 (released).
    """
    return _linear(in_channels, out_channels) if kind == "linear" else ProjectionHead(in_channels, out_channels)


def _linear(in_channels: int, out_channels: int) -> nn.Linear:
    layer = nn.Linear(in_channels, out_channels)
    nn.init.normal_(layer.weight, std=in_channels**-0.5)
    return layer
