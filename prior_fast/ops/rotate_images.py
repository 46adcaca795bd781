"""Rotating, mirroring and normalizing prepared images: the augmentation of the loaders."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from prior_fast import extension
from prior_fast.ops.common.backend import constant_while_tracing, resolve_backend
from prior_fast.ops.common.checks import (
    check_device,
    check_dtype,
    check_is_tensor,
    check_number,
    check_shape,
    values_are_checked,
)
from prior_fast.ops.common.triton import with_triton

__all__ = ["rotate_images"]

OUTPUT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INTERPOLATIONS = ("bilinear", "nearest")


def rotate_images_reference(
    images: Tensor,
    rows: Tensor,
    angles: Tensor,
    flips: Tensor,
    mean: float,
    std: float,
    dtype: torch.dtype,
    nearest: bool = False,
) -> Tensor:
    """`rotate_images` in plain PyTorch, float32."""
    height, width = images.shape[1:]
    if not rows.shape[0]:  # affine_grid rejects an empty batch
        return images.new_empty((0, 1, height, width), dtype=dtype)
    x = images[rows][:, None].float() / 255
    radians = angles.deg2rad()
    sign = 1 - 2 * flips.float()
    cos, sin = radians.cos(), radians.sin()
    zero = torch.zeros_like(cos)
    # Maps an output position to the input position, so it is the inverse rotation. Lengths are in units of half a side.
    matrix = torch.stack([cos * sign, sin * height / width, zero, -sin * sign * width / height, cos, zero], dim=1)
    grid = F.affine_grid(matrix.view(-1, 2, 3), list(x.shape), align_corners=False)
    mode = "nearest" if nearest else "bilinear"
    rotated = F.grid_sample(x, grid, mode=mode, padding_mode="zeros", align_corners=False)
    return ((rotated - mean) / std).to(dtype)


# csrc/ implements it for CPUs.
torch.library.define(
    "prior_fast::rotate_images",
    "(Tensor images, Tensor rows, Tensor angles, Tensor flips, float mean, float std, bool nearest) -> Tensor",
)


@torch.library.register_fake("prior_fast::rotate_images")
def _(images: Tensor, rows: Tensor, angles: Tensor, flips: Tensor, mean: float, std: float, nearest: bool) -> Tensor:
    return images.new_empty((rows.shape[0], 1, *images.shape[1:]), dtype=torch.float32)


@torch.library.custom_op("prior_fast::rotate_images_triton", mutates_args=())
def _rotate_images_triton(
    images: Tensor,
    rows: Tensor,
    angles: Tensor,
    flips: Tensor,
    mean: float,
    std: float,
    dtype: torch.dtype,
    nearest: bool,
) -> Tensor:
    from prior_fast.kernels.rotate_images import rotate_images_fwd

    return rotate_images_fwd(images, rows, angles, flips, mean, std, dtype, nearest)


@_rotate_images_triton.register_fake
def _(
    images: Tensor,
    rows: Tensor,
    angles: Tensor,
    flips: Tensor,
    mean: float,
    std: float,
    dtype: torch.dtype,
    nearest: bool,
) -> Tensor:
    return images.new_empty((rows.shape[0], 1, *images.shape[1:]), dtype=dtype)


def _backends(images: Tensor) -> dict[str, str | None]:
    """The backends for the device of `images`, best first: None, or the reason why it can't serve."""
    if images.device.type == "cuda":
        return with_triton(images.new_empty(0, dtype=torch.float32))
    cpp = _unavailable()
    return {"cpp": cpp, **with_triton(images.new_empty(0, dtype=torch.float32))}


_unavailable: Callable[[], str | None] = constant_while_tracing(lambda: extension.unavailable("cpu"))


def rotate_images(
    images: Tensor,
    rows: Tensor,
    angles: Tensor,
    flips: Tensor,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: torch.dtype = torch.float32,
    interpolation: Literal["bilinear", "nearest"] = "bilinear",
    backend: str | None = None,
) -> Tensor:
    """Rotate images about their centers, mirror and normalize them.

    The rotation is that of torchvision's RandomAffine with zero fill, by which PRIOR's released code augments training
    images. The supplement (2.1) states the z-scores and no augmentation. Images are read from an array of all.

    Args:
        images: [N, H, W] uint8, contiguous; may be memory-mapped from a file.
        rows: [B] int64, indices of the images, on the device of `images`.
        angles: [B] float32 in degrees, clockwise.
        flips: [B] bool, whether to mirror left and right after the rotation.
        mean: mean of the pixels in [0, 1]; subtracted from every pixel, zero fill included.
        std: standard deviation of the pixels in [0, 1]; the difference is divided by it.
        dtype: dtype of the result, float32, bfloat16 or float16; the arithmetic is float32.
        interpolation: "bilinear", or "nearest": the pixel at the position, as torchvision's RandomAffine does unless
            it is told otherwise (released).
        backend: "triton" (one kernel), "cpp" (threads of the CPU) or "reference"; see
            `prior_fast.ops.common.backend.resolve_backend`.

    Returns:
        [B, 1, H, W]. With one channel its memory layout is also channels_last. No gradient.

    Raises:
        ValueError: a shape, dtype, device, row, number or backend that does not fit; the message names it.
    """
    _check(images, rows, angles, flips)
    check_number("mean", mean)
    check_number("std", std)
    if std <= 0:
        raise ValueError(f"std must be over 0, got {std}")
    if dtype not in OUTPUT_DTYPES:
        raise ValueError(f"dtype={dtype}, wanted one of float32, bfloat16, float16")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation={interpolation!r}, wanted one of {', '.join(INTERPOLATIONS)}")
    nearest = interpolation == "nearest"
    chosen = resolve_backend("rotate_images", backend, _backends(images))
    if chosen == "reference":
        return rotate_images_reference(images, rows, angles, flips, mean, std, dtype, nearest)
    rows, angles, flips = rows.contiguous(), angles.contiguous(), flips.contiguous()
    if chosen == "triton":
        return _rotate_images_triton(images, rows, angles, flips, mean, std, dtype, nearest)
    return torch.ops.prior_fast.rotate_images(images, rows, angles, flips, mean, std, nearest).to(dtype)


def _check(images: Tensor, rows: Tensor, angles: Tensor, flips: Tensor) -> None:
    sizes: dict[str, tuple[int, str]] = {}
    for name, value, letters, dtype in (
        ("images", images, "N H W", torch.uint8),
        ("rows", rows, "B", torch.int64),
        ("angles", angles, "B", torch.float32),
        ("flips", flips, "B", torch.bool),
    ):
        check_is_tensor(name, value, letters)
        check_dtype(name, value, (dtype,))
        check_shape(name, value, letters.split(), sizes)
        check_device(name, value, "images", images)
    if not images.is_contiguous():
        raise ValueError("images is not contiguous: pass the whole array, and select images by rows")
    if values_are_checked(rows) and rows.numel() and not (rows.min() >= 0 and rows.max() < images.shape[0]):
        raise ValueError(f"rows must lie in [0, {images.shape[0]}), got {rows.min().item()} to {rows.max().item()}")
