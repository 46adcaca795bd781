"""cuDNN in training: the fastest of its convolutions, but not its attention."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def cudnn_for_training(benchmark: bool) -> Iterator[None]:
    """The context for training steps on a GPU; it has no effect on a CPU.

    Convolutions: with `benchmark`, cuDNN times its algorithms at the first call of each shape and keeps the fastest.
    Image shapes do not change in training, so this happens once.

    Attention: on Hopper, torch 2.11 and later prefer cuDNN's attention, which builds a plan on the host for each new
    shape. Reports that are padded inside the attention have a new shape in each batch. In this context, torch uses
    flash attention, or memory-efficient attention if there is a mask.
    """
    before = torch.backends.cudnn.benchmark, torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before[0]
        torch.backends.cuda.enable_cudnn_sdp(before[1])
