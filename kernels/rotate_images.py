"""Rotating, mirroring and normalizing 8-bit images picked by row.

N images of H x W pixels; a program makes BLOCK pixels of one image of the result.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels.common.launch import launch

# Eight pixels a thread with four warps. 224 x 224 pixels are 49 whole blocks.
BLOCK = 1024
DEGREE = tl.constexpr(math.pi / 180)


@triton.jit
def _cos_sin(degrees):
    """The cosine and the sine of an angle, float32 and right to 1e-7 up to 2e7 degrees.

    Those of CUDA's library reduce huge angles with the help of an array in local memory. In degrees a quarter turn is a
    whole number, so quarter turns are taken off without rounding. At most 45 degrees are left, for which the
    polynomials of Cephes' sinf and cosf serve.
    """
    quarters = tl.floor(degrees / 90.0 + 0.5)
    x = (degrees - 90.0 * quarters) * DEGREE
    z = x * x
    sin = x + x * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4))
    cos = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5))
    # Whole numbers in float32, so the comparisons below are exact.
    turns = quarters - 4.0 * tl.floor(quarters * 0.25)
    odd = (turns == 1.0) | (turns == 3.0)
    sign = tl.where(turns >= 2.0, -1.0, 1.0)
    return sign * tl.where(odd, -sin, cos), sign * tl.where(odd, cos, sin)


@triton.jit
def _pixel(image_ptr, i, j, H, W, mask):
    """Pixel (i, j) in float32; zero outside the image."""
    # A mask in place of a border in memory: images are read as they lie in the array of all of them.
    inside = mask & (i >= 0) & (i < H) & (j >= 0) & (j < W)
    return tl.load(image_ptr + i * W + j, mask=inside, other=0).to(tl.float32)


@triton.jit
def _rotate_images_fwd_kernel(
    images_ptr,
    rows_ptr,
    angles_ptr,
    flips_ptr,
    out_ptr,
    factor,
    offset,
    H,
    W,
    NEAREST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out = factor * (four pixels, bilinear, or the nearest one) + offset, read where the inverse rotation leads."""
    b = tl.program_id(0).to(tl.int64)
    image_ptr = images_ptr + tl.load(rows_ptr + b) * H * W
    cos, sin = _cos_sin(tl.load(angles_ptr + b))
    # Mirroring comes after the rotation, so it turns the result's columns before they are rotated back.
    sign = 1.0 - 2.0 * tl.load(flips_ptr + b).to(tl.float32)
    p = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = p < H * W
    center_y, center_x = (H - 1) / 2.0, (W - 1) / 2.0
    dy = (p // W).to(tl.float32) - center_y
    dx = ((p % W).to(tl.float32) - center_x) * sign
    y = cos * dy - sin * dx + center_y
    x = sin * dy + cos * dx + center_x
    if NEAREST:
        pixel = _pixel(image_ptr, tl.floor(y + 0.5).to(tl.int32), tl.floor(x + 0.5).to(tl.int32), H, W, mask)
    else:
        top, left = tl.floor(y), tl.floor(x)
        i, j = top.to(tl.int32), left.to(tl.int32)
        below, right = y - top, x - left
        # Four loads of bytes a pixel. At a few degrees neighbouring threads read neighbouring bytes of one or two rows.
        upper = _pixel(image_ptr, i, j, H, W, mask) * (1.0 - right)
        upper += _pixel(image_ptr, i, j + 1, H, W, mask) * right
        lower = _pixel(image_ptr, i + 1, j, H, W, mask) * (1.0 - right)
        lower += _pixel(image_ptr, i + 1, j + 1, H, W, mask) * right
        pixel = upper * (1.0 - below) + lower * below
    tl.store(out_ptr + b * H * W + p, pixel * factor + offset, mask=mask)


def rotate_images_fwd(
    images: Tensor,
    rows: Tensor,
    angles: Tensor,
    flips: Tensor,
    mean: float,
    std: float,
    dtype: torch.dtype,
    nearest: bool = False,
) -> Tensor:
    """images [N, H, W] uint8, rows [B] int64, angles [B] float32, flips [B] bool, contiguous -> [B, 1, H, W]."""
    batch, (height, width) = rows.shape[0], images.shape[1:]
    out = torch.empty(batch, 1, height, width, dtype=dtype, device=images.device)
    arguments = {
        "images_ptr": images, "rows_ptr": rows, "angles_ptr": angles, "flips_ptr": flips, "out_ptr": out,
        "factor": 1.0 / (255.0 * std), "offset": -mean / std, "H": height, "W": width,
    }  # fmt: skip
    meta = {"NEAREST": nearest, "BLOCK": BLOCK}
    launch(_rotate_images_fwd_kernel, (batch, triton.cdiv(height * width, BLOCK)), arguments, meta)
    return out
