"""Giving images that DALI resized the border that Pillow gives them.

Both take a pixel of the result as a mean of those under a triangle. Where the triangle reaches over the edge, DALI
repeats the outermost pixel, and Pillow leaves out what is not there. So Pillow's outermost line is DALI's less what
DALI gave the outermost pixels too much, over what is left of the weights; all other lines are equal.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lines:
    """What DALI made of images of any size; S is the side of the result. All float32, channels last.

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
    """The share of the first pixel's triangle that lies before the edge, when `size` [B] pixels become `side`: [B]."""
    scale = size.double() / side
    wide = scale.clamp(min=1)
    # Pixels from 3 sides of the triangle before the edge; the triangle reaches less than one wide.
    reach = torch.arange(-64, 64, device=size.device)
    weights = (1 - ((reach + 0.5)[None] - scale[:, None] / 2).abs() / wide[:, None]).clamp(min=0)
    return (weights[:, :64].sum(1) / weights.sum(1)).float()


def _corrected(framed: Tensor, over: Tensor) -> Tensor:
    """[B, S + 2, .] -> [B, S, .]: its first and last inner lines less `over` [B, 1] of the line beside them."""
    inner = framed[:, 1:-1].clone()
    for line, beside in ((0, 0), (-1, -1)):
        inner[:, line] = (inner[:, line] - over * framed[:, beside]) / (1 - over)
    return inner
