"""The least time of the three products of the decoder's transposed convolutions, as implicit matrix products."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from prior_fast.config import RunConfig
from prior_fast.hardware.chips import Speeds, least_time
from prior_fast.measure.convolutions.found import DATA, FORWARD, WEIGHT, Convolution, collect
from prior_fast.measure.predict.products import name_of


def transposed_products(
    config: RunConfig, stage: int, dtype: torch.dtype, speeds: Mapping[str, Speeds]
) -> list[dict[str, Any]]:
    """A row for each direction of each transposed convolution; none in stages without the image decoder."""
    return [
        {
            "name": conv.name,
            "form": f"{conv.weight[0]} to {conv.weight[1]}, {'x'.join(map(str, conv.input[2:]))}",
            "direction": direction,
            **dict(zip("MNK", sizes(conv, direction), strict=True)),
            "operations": conv.operations,
            "bytes": conv.least_bytes(direction, dtype.itemsize),
            "least": {name: least(conv, direction, dtype, own) for name, own in speeds.items()},
        }
        for conv in collect(config, stage, compiled=True)
        if conv.transposed
        for direction in conv.directions
    ]


def sizes(conv: Convolution, direction: str) -> tuple[int, int, int]:
    """M, N and K of the implicit product: rows, columns, and terms of each sum.

    Forward and for the gradient of the input, a row is a pixel, a column a channel, and the sum is over taps times
    channels. A transposed convolution of stride s reaches each output pixel by one of s^2 taps. The gradient of the
    weight sums over the input's pixels.
    """
    inputs, outputs, *kernel = conv.weight
    taps = math.prod(kernel)
    before, after = (shape[0] * math.prod(shape[2:]) for shape in (conv.input, conv.output))
    return {
        FORWARD: (after, outputs, taps // math.prod(conv.stride) * inputs),
        DATA: (before, inputs, taps * outputs),
        WEIGHT: (taps * outputs, inputs, before),
    }[direction]


def least(conv: Convolution, direction: str, dtype: torch.dtype, speeds: Speeds) -> dict[str, Any]:
    """The least milliseconds by the chip's rates, and what sets them."""
    moved = conv.least_bytes(direction, dtype.itemsize)
    seconds, bound = least_time(speeds, name_of(dtype), moved, conv.operations)
    return {"milliseconds": 1e3 * seconds, "by": bound}
