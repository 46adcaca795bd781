"""What training takes of cuDNN: the fastest of its convolutions, and not its attention."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def cudnn_for_training(benchmark: bool) -> Iterator[None]:
    """A block in which steps on a GPU run; on a CPU nothing in it changes.

    Convolutions: with `benchmark` cuDNN times its algorithms at the first call of each shape and keeps the fastest.
    Image shapes stay the same in training, so that is done once.

    Attention: on Hopper, torch 2.11 and later prefer cuDNN's, which builds a plan on the host for each new shape.
    Reports that are padded inside the attention have another shape in each batch. torch then takes flash attention, or
    the memory-efficient one where there is a mask.
    """
    before = torch.backends.cudnn.benchmark, torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before[0]
        torch.backends.cuda.enable_cudnn_sdp(before[1])
