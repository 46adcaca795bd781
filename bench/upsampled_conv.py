"""The image decoder's upsampled convolutions, from 1,536 channels of 7x7 pixels to 96 of 112x112."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from prior_fast.bench.common.case import Case, Public, Work, batches, size

# Channels in and out, and the side of the input, of each block of the paper's decoder and of the tiny one.
BLOCKS = ((1536, 768, 7), (768, 384, 14), (384, 192, 28), (192, 96, 56), (96, 48, 112))
SMALL_BLOCKS = ((256, 64, 7), (64, 32, 14), (32, 16, 28))


def _images(batch: int, channels: int, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[B, C, H, W] with the channels innermost in memory."""
    return torch.randn(batch, height, width, channels, device=device, dtype=dtype).permute(0, 3, 1, 2)


def _both(
    batch: int,
    inner: int,
    outer: int,
    height: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype,
    bias: bool = False,
    relu: bool = False,
    moments: bool = False,
) -> Iterator[Case]:
    from prior_fast.kernels.upsampled_conv import upsampled_conv_bwd, upsampled_conv_fwd

    x = torch.randn(batch, height, width, inner, device=device, dtype=dtype)
    taps = torch.randn(4, inner, 4, outer, device=device, dtype=dtype)
    dy = torch.randn(batch, 2 * height, 2 * width, outer, device=device, dtype=dtype)
    row = torch.randn(outer, device=device, dtype=dtype) if bias else None
    # 16 taps for each pixel of x, a multiplication and an addition each.
    moved, operations = size(x, taps, dy), 2 * 16 * batch * height * width * inner * outer
    shape = f"B={batch} {inner}->{outer} {height}x{width}"
    forward = partial(upsampled_conv_fwd, x, taps, row, relu, moments)
    yield Case("upsampled_conv", shape, "forward", forward, moved, operations)
    yield Case("upsampled_conv", shape, "backward", partial(upsampled_conv_bwd, dy, taps), moved, operations)


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Forward with moments, and the gradient of the input."""
    for batch in (128, 1024):
        for inner, outer, side in BLOCKS:
            yield from _both(batch, inner, outer, side, side, device, dtype, moments=True)


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Every tile; sizes of 1 (constants to Triton), divisible by 16 or not; with and without bias, ReLU, moments."""
    none, everything = (False, False, False), (True, True, True)
    for batch, inner, outer, height, width, flags in (
        (1, 1, 1, 1, 1, none),
        (2, 3, 5, 2, 3, everything),
        (3, 16, 32, 16, 16, everything),
        (2, 32, 16, 28, 28, none),
        (2, 48, 33, 1, 5, none),
        (2, 64, 64, 9, 7, everything),
        (2, 64, 64, 9, 7, none),
        (2, 64, 48, 5, 1, (True, False, False)),
        (2, 64, 64, 1, 1, (False, True, True)),
        (1, 100, 130, 7, 9, everything),
        (1, 130, 100, 7, 9, (False, True, False)),
        (2, 192, 96, 4, 4, (True, True, False)),
        (2, 96, 192, 4, 4, (False, False, True)),
    ):
        for case in _both(batch, inner, outer, height, width, device, dtype, *flags):
            yield case.run


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """The last block at several batch sizes, and the other blocks. The reference on a GPU is cuDNN's."""
    blocks = SMALL_BLOCKS if small else BLOCKS
    for batch in batches(small):
        yield _public(batch, *blocks[-1], "batch", batch, device, dtype)
    for block in blocks[:-1]:
        yield _public(batches(small)[0], *block, "side", block[2], device, dtype)


def _public(
    batch: int, inner: int, outer: int, side: int, axis: str, at: int, device: torch.device, dtype: torch.dtype
) -> Public:
    from prior_fast.ops import upsampled_conv

    x = _images(batch, inner, side, side, device, dtype)
    weight = torch.randn(outer, inner, 3, 3, device=device, dtype=dtype)
    result = 4 * batch * outer * side * side * x.element_size()
    operations = 2 * 16 * batch * inner * outer * side * side
    return Public(
        "upsampled_conv",
        f"B={batch} {inner}->{outer} {side}x{side}",
        upsampled_conv,
        (x, weight),
        Work(size(x, weight) + result, operations),
        Work(2 * (size(x, weight) + result), 3 * operations),
        wanted=(0, 1),
        axis=axis,
        at=at,
        others={"upsample, then convolve": _upsample_then_convolve},
        compiles=False,
    )


def _upsample_then_convolve(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
