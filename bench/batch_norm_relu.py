"""Batch normalization with its ReLU in the image encoder, at PRIOR's batch size and eight times that.

A channel's mean takes an addition for each number and its variance three operations, the result three more.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from prior_fast.bench.common.case import Case, Public, Work, batches, size

# Channels and sides of the outputs of ResNet-50's stages, and of its stem.
SHAPES = ((64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7))
FORWARD, BACKWARD = 7, 12  # operations for each number


def _images(device: torch.device, dtype: torch.dtype, batch: int, channels: int, side: int) -> Tensor:
    """[B, C, side, side], the channels innermost."""
    return torch.randn(batch, side, side, channels, device=device, dtype=dtype).permute(0, 3, 1, 2)


def _calls(
    x: Tensor, activation: int, added: bool = False, affine: bool = True, channels: int = 0, width: int = 0
) -> tuple[Callable[[], object], Callable[[], object], int]:
    """The forward and the backward pass, and the bytes of one tensor of images."""
    from prior_fast.kernels.batch_norm_relu import batch_norm_relu_bwd, batch_norm_relu_fwd

    channels = channels or x.shape[1]
    weight, bias = (torch.randn(channels, device=x.device) if affine else None for _ in range(2))
    kept = x[:, :channels]
    # Not normal numbers: on "meta" the values of a random tensor would be made for nothing.
    residual = torch.empty_like(kept, memory_format=torch.channels_last).copy_(kept) if added else None
    shape = (x.shape[0], width or channels, *x.shape[2:])
    dy = torch.randn(shape, device=x.device, dtype=x.dtype).contiguous(memory_format=torch.channels_last)
    moments = torch.ones(2, channels, device=x.device)
    forward = partial(batch_norm_relu_fwd, x, weight, bias, residual, 1e-5, activation, channels, width or channels)
    backward = partial(batch_norm_relu_bwd, dy, x, weight, bias, moments, dy if added else None, 1e-5, activation)
    return forward, backward, size(x)


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The launchers at ResNet-50's shapes, with a ReLU after the norm; the last norm of a block has a residual."""
    for channels, side in SHAPES:
        for added in (False, True) if side < 112 else (False,):
            x = _images(device, dtype, 128, channels, side)
            forward, backward, moved = _calls(x, 2, added)
            shape = f"B=128 C={channels} {side}x{side}" + (" residual" if added else "")
            yield Case("batch_norm_relu", shape, "forward", forward, (2 + added) * moved, FORWARD * x.numel())
            yield Case("batch_norm_relu", shape, "backward", backward, (3 + 2 * added) * moved, BACKWARD * x.numel())


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Every number of columns, whole and not; few and many parts; each ReLU, with padding, a residual, no weights."""
    for batch, channels, side, activation in (
        (2, 1, 3, 1), (2, 3, 9, 2), (2, 17, 5, 0), (3, 48, 9, 0), (2, 100, 40, 2), (2, 64, 150, 0),
        (128, 64, 112, 1), (128, 256, 56, 0),
    ):  # fmt: skip
        yield from _calls(_images(device, dtype, batch, channels, side), activation)[:2]
    yield from _calls(_images(device, dtype, 128, 64, 224), 1, channels=48, width=64)[:2]
    yield from _calls(_images(device, dtype, 128, 64, 224), 1, channels=48)[:2]
    yield from _calls(_images(device, dtype, 2, 20, 5), 2, added=True, affine=False)[:2]


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """The first norms of ResNet-50's second stage; 8 images, or 128 to 1,024. Operations are those of `cases`."""
    from prior_fast.ops import batch_norm_relu

    channels, side = (64, 14) if small else (64, 56)
    for batch in batches(small):
        x = _images(device, dtype, batch, channels, side)
        weight, bias = (torch.randn(channels, device=device) for _ in range(2))
        forward = Work(2 * size(x) + 4 * size(weight), FORWARD * x.numel())
        both = Work(4 * size(x) + 8 * size(weight), (FORWARD + BACKWARD) * x.numel())
        yield Public(
            "batch_norm_relu",
            f"B={batch} C={channels} {side}x{side}",
            partial(batch_norm_relu, activation="after"),
            (x, weight, bias),
            forward,
            both,
            wanted=(0, 1, 2),
            at=batch,
        )
