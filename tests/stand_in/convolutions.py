"""Convolutions that are selected as on a GPU, for their layouts, but not computed: results are empty."""

from typing import Any

import torch
from torch import Tensor


def skip_convolutions() -> torch.library.Library:
    """With the stand-in: torch selects cuDNN, and cuDNN's work is skipped as long as the returned object lives."""
    torch.backends.cudnn.enabled = True
    library = torch.library.Library("aten", "IMPL")
    library.impl("convolution", _convolution, "CUDA")
    library.impl("convolution_backward", _convolution_backward, "CUDA")
    return library


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
    shape = torch.ops.aten.convolution(x.to("meta"), weight.to("meta"), None, *options).shape
    return x.new_empty(shape).contiguous(memory_format=torch.channels_last)


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, sizes: list[int] | None, *options: Any
) -> list[Tensor | None]:
    *_, wanted = options
    made = [t.new_empty(t.shape).contiguous(memory_format=torch.channels_last) for t in (x, weight)]
    made.append(x.new_empty(sizes or 0))
    return [t if want else None for t, want in zip(made, wanted)]
