"""Correcting the border of images that DALI resized, so that it equals that of Pillow.

Both compute a pixel of the result as a weighted mean with a triangle filter. Where the triangle extends over the edge,
DALI repeats the outermost pixel, and Pillow leaves out the missing pixels. Pillow's outermost line is therefore DALI's
line minus the excess weight times the outermost pixels, divided by the remaining weight. All other lines are equal.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lines:
    """Images of any size, resized by DALI; S is the side of the result. All float32, channels last.

    image: [B, S, S, 1].
    top, bottom: [B, 1, S, 1], the outermost lines of the full-size images, resized; left, right: [B, S, 1, 1].
    corners: top left, top right, bottom left, bottom right of the full-size images, each [B, 1, 1, 1].
    """

    image: Tensor
    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor
    top_left: Tensor
    top_right: Tensor
    bottom_left: Tensor
    bottom_right: Tensor


def with_pillows_border(lines: Lines, sizes: Tensor) -> Tensor:
    """Lines and the sizes [B, 3] (height, width, channels) of the full-size images -> uint8 [B, S, S]."""
    rows = [
        [lines.top_left, lines.top, lines.top_right],
        [lines.left, lines.image, lines.right],
        [lines.bottom_left, lines.bottom, lines.bottom_right],
    ]
    # [B, S + 2, S + 2]: the resized image, framed by the outermost lines of the full-size one.
    framed = torch.cat([torch.cat(row, dim=2) for row in rows], dim=1)[..., 0]
    side = lines.image.shape[1]
    over = [weight_over_the_edge(sizes[:, axis].to(framed.device), side)[:, None] for axis in (0, 1)]
    inner = _corrected(framed, over[0])
    return _corrected(inner.mT, over[1]).mT.round().clamp(0, 255).to(torch.uint8).contiguous()


def weight_over_the_edge(size: Tensor, side: int) -> Tensor:
    """The share of the first pixel's weight that lies over the edge, when `size` [B] pixels become `side`: [B]."""
    scale = size.double() / side
    wide = scale.clamp(min=1)
    # Pixels on both sides of the edge. For scale >= 1 the triangle covers scale / 2 before it and 3 / 2 scale after it.
    reach = torch.arange(-64, 64, device=size.device)
    weights = (1 - ((reach + 0.5)[None] - scale[:, None] / 2).abs() / wide[:, None]).clamp(min=0)
    return (weights[:, :64].sum(1) / weights.sum(1)).float()


def _corrected(framed: Tensor, over: Tensor) -> Tensor:
    """[B, S + 2, .] -> [B, S, .]: correct the first and last inner lines by `over` [B, 1] of the outer line."""
    inner = framed[:, 1:-1].clone()
    for line, beside in ((0, 0), (-1, -1)):
        inner[:, line] = (inner[:, line] - over * framed[:, beside]) / (1 - over)
    return inner
