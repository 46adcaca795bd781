"""The augmentation of a batch, at PRIOR's batch size and eight times that."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, size

SIDE = 224


def _call(device: torch.device, dtype: torch.dtype, batch: int, height: int, width: int) -> Callable[[], torch.Tensor]:
    from prior_fast.kernels.rotate_images import rotate_images_fwd

    images = torch.randint(0, 256, (2 * batch, height, width), dtype=torch.uint8, device=device)
    rows = torch.randint(0, 2 * batch, (batch,), device=device)
    angles = torch.rand(batch, device=device) * 10 - 5
    flips = torch.zeros(batch, dtype=torch.bool, device=device)
    return partial(rotate_images_fwd, images, rows, angles, flips, 0.4755, 0.3011, dtype)


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The launcher; each pixel takes eight operations for its position and eleven for its value."""
    for batch in (128, 1024):
        pixels = batch * SIDE * SIDE
        result = size(torch.empty(1, dtype=dtype)) * pixels
        run = _call(device, dtype, batch, SIDE, SIDE)
        yield Case("rotate_images", f"B={batch} {SIDE}x{SIDE}", "forward", run, pixels + result, 19 * pixels)


def configurations(device: torch.device, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Sides divisible by 16 or not; one image of one pixel, whose sizes are constants to Triton."""
    for batch, height, width in ((3, 224, 224), (2, 33, 17), (1, 1, 1)):
        yield _call(device, dtype, batch, height, width)


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """A batch out of twice as many images; operations as in `cases`. Only the images of the batch are read."""
    from prior_fast.ops import rotate_images

    for batch in batches(small):
        images = torch.randint(0, 256, (2 * batch, SIDE, SIDE), dtype=torch.uint8, device=device)
        rows = torch.randperm(2 * batch, device=device)[:batch]
        angles = torch.rand(batch, device=device) * 10 - 5
        flips = torch.zeros(batch, dtype=torch.bool, device=device)
        pixels = batch * SIDE * SIDE
        moved = pixels + size(rows, angles, flips) + pixels * dtype.itemsize
        rotate = partial(rotate_images, mean=0.4755, std=0.3011)
        yield Public(
            "rotate_images",
            f"B={batch} {SIDE}x{SIDE}",
            partial(rotate, dtype=dtype),
            (images, rows, angles, flips),
            Work(moved, 19 * pixels),
            at=batch,
            # The op's arithmetic is float32 by definition.
            truth=partial(rotate, backend="reference"),
        )
