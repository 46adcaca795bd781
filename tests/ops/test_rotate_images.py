"""Rotation of prepared images: against torchvision, against float64 and among the backends."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomAffine
from torchvision.transforms.v2 import functional as TF

from prior_fast import extension, ops
from prior_fast.ops.rotate_images import rotate_images_reference

BACKENDS = ("reference", "cpp", "triton")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpp" and (reason := extension.unavailable("cpu")):
        pytest.skip(reason)
    return request.param


def draw(rng: np.random.Generator, count: int = 3, height: int = 24, width: int = 24, batch: int = 4) -> dict:
    return {
        "images": torch.tensor(rng.integers(0, 256, (count, height, width)), dtype=torch.uint8),
        "rows": torch.tensor(rng.integers(0, count, batch)),
        "angles": torch.tensor(rng.uniform(-180, 180, batch), dtype=torch.float32),
        "flips": torch.tensor(rng.random(batch) < 0.5),
    }


def exact(images: torch.Tensor, rows: torch.Tensor, angles: torch.Tensor, flips: torch.Tensor) -> np.ndarray:
    """The rotation in float64 numpy, pixel by pixel, from its definition; [B, H, W] in gray levels."""
    _, height, width = images.shape
    out = np.zeros((len(rows), height, width))
    for b, (row, angle, flip) in enumerate(zip(rows.tolist(), angles.double().deg2rad().tolist(), flips.tolist())):
        padded = np.pad(images[row].numpy().astype(np.float64), 2)
        y, x = np.mgrid[:height, :width].astype(np.float64)
        dy, dx = y - (height - 1) / 2, (x - (width - 1) / 2) * (-1 if flip else 1)
        # Turning the picture clockwise by an angle reads it at the position turned back by that angle.
        sy = np.cos(angle) * dy - np.sin(angle) * dx + (height - 1) / 2
        sx = np.sin(angle) * dy + np.cos(angle) * dx + (width - 1) / 2
        sy, sx = np.clip(sy, -1.5, height + 0.5), np.clip(sx, -1.5, width + 0.5)
        i, j = np.floor(sy).astype(int), np.floor(sx).astype(int)
        below, right = sy - i, sx - j
        upper = padded[i + 2, j + 2] * (1 - right) + padded[i + 2, j + 3] * right
        lower = padded[i + 3, j + 2] * (1 - right) + padded[i + 3, j + 3] * right
        out[b] = upper * (1 - below) + lower * below
    return out


@pytest.mark.parametrize(("height", "width"), [(24, 24), (17, 33), (1, 1), (2, 5), (40, 3)])
def test_equals_the_definition_in_float64(backend: str, height: int, width: int, rng: np.random.Generator) -> None:
    drawn = draw(rng, height=height, width=width)
    drawn["angles"][0] = 0.0
    got = ops.rotate_images(**drawn, backend=backend)
    assert got.shape == (4, 1, height, width)
    # Positions have errors of some 1e-6 of the side, between pixels that may differ by 255.
    assert np.abs(got[:, 0].numpy() * 255 - exact(**drawn)).max() < 0.02


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize(("height", "width"), [(24, 24), (17, 33), (1, 1), (2, 5), (40, 3)])
def test_an_angle_of_0_keeps_each_pixel(
    backend: str, height: int, width: int, interpolation: str, rng: np.random.Generator
) -> None:
    drawn = draw(rng, height=height, width=width, batch=6)
    drawn["angles"][:4], drawn["flips"][:4] = 0.0, torch.tensor([False, True, True, False])
    got = ops.rotate_images(**drawn, mean=0.3, std=0.2, interpolation=interpolation, backend=backend)[:4, 0]
    kept = drawn["images"][drawn["rows"][:4]]
    kept[1:3] = kept[1:3].flip(-1)
    torch.testing.assert_close(got.double(), (kept.double() / 255 - 0.3) / 0.2, rtol=0, atol=3e-5)


def positions(height: int, width: int, angle: float, flip: bool) -> tuple[np.ndarray, np.ndarray]:
    """The row and column, in pixels, that each pixel of the result is read from: float64 [H, W] each."""
    radians = np.deg2rad(np.float64(angle))
    y, x = np.mgrid[:height, :width].astype(np.float64)
    dy, dx = y - (height - 1) / 2, (x - (width - 1) / 2) * (-1 if flip else 1)
    sy = np.cos(radians) * dy - np.sin(radians) * dx + (height - 1) / 2
    return sy, np.sin(radians) * dy + np.cos(radians) * dx + (width - 1) / 2


@pytest.mark.parametrize(("height", "width"), [(24, 24), (17, 33), (1, 1), (2, 5), (40, 3)])
def test_nearest_is_the_pixel_at_the_position(backend: str, height: int, width: int, rng: np.random.Generator) -> None:
    drawn = draw(rng, height=height, width=width)
    drawn["angles"][0] = 0.0
    got = ops.rotate_images(**drawn, mean=0.3, std=0.2, interpolation="nearest", backend=backend)[:, 0].numpy()
    checked = 0
    for b, row in enumerate(drawn["rows"].tolist()):
        sy, sx = positions(height, width, float(drawn["angles"][b]), bool(drawn["flips"][b]))
        i, j = np.floor(sy + 0.5).astype(int), np.floor(sx + 0.5).astype(int)
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
        pixels = drawn["images"][row].numpy()[np.clip(i, 0, height - 1), np.clip(j, 0, width - 1)]
        wanted = (np.where(inside, pixels, 0) / 255 - 0.3) / 0.2
        # Half-way between two pixels float32 may fall on either side.
        clear = np.minimum(np.abs(sy % 1 - 0.5), np.abs(sx % 1 - 0.5)) > 1e-4
        np.testing.assert_allclose(got[b][clear], wanted[clear], atol=1e-5)
        checked += clear.sum()
    assert checked > 0.9 * got.size


@pytest.mark.parametrize("angle", [-5.0, 0.0, 2.7])
def test_nearest_is_torchvisions_random_affine(backend: str, angle: float, rng: np.random.Generator) -> None:
    """torchvision rotates Pillow's 8-bit image. Its positions are fixed-point numbers, so a few pixels may differ."""
    image = rng.integers(0, 256, (64, 64)).astype(np.uint8)
    transform = RandomAffine((angle, angle))
    assert transform.interpolation == InterpolationMode.NEAREST
    theirs = np.asarray(transform(Image.fromarray(image)))
    row, flip = torch.tensor([0]), torch.tensor([False])
    drawn = (torch.from_numpy(image)[None], row, torch.tensor([angle]), flip)
    ours = ops.rotate_images(*drawn, interpolation="nearest", backend=backend)[0, 0].numpy() * 255
    assert (np.abs(ours - theirs) < 0.01).mean() > 0.99


@pytest.mark.parametrize("angle", [-5.0, 3.3, 90.0])
def test_rotation_is_torchvisions(backend: str, angle: float, rng: np.random.Generator) -> None:
    image = torch.tensor(rng.integers(0, 256, (1, 64, 64)), dtype=torch.uint8)
    row, flip = torch.tensor([0]), torch.tensor([False])
    ours = ops.rotate_images(image, row, torch.tensor([angle]), flip, backend=backend)[0, 0]
    bilinear = InterpolationMode.BILINEAR
    theirs = TF.affine(image.float() / 255, angle, [0.0, 0.0], 1.0, [0.0, 0.0], interpolation=bilinear)[0]
    assert (ours - theirs).abs().max() < 1e-4


def test_flip_mirrors_after_the_rotation(backend: str, rng: np.random.Generator) -> None:
    drawn = draw(rng, count=1, batch=2) | {"angles": torch.tensor([4.0, 4.0]), "flips": torch.tensor([False, True])}
    both = ops.rotate_images(**drawn, backend=backend)
    assert (both[1, 0] - both[0, 0].flip(-1)).abs().max() < 1e-4


def test_nothing_to_do_gives_the_picked_images_normalized(backend: str, rng: np.random.Generator) -> None:
    drawn = draw(rng) | {"angles": torch.zeros(4), "flips": torch.zeros(4, dtype=torch.bool)}
    out = ops.rotate_images(**drawn, mean=0.4755, std=0.3011, backend=backend)
    wanted = (drawn["images"][drawn["rows"]].double() / 255 - 0.4755) / 0.3011
    # PyTorch's grid_sample does not hit the pixels' centers exactly.
    assert (out[:, 0] - wanted).abs().max() < (1e-3 if backend == "reference" else 2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_results_are_the_rounded_ones(backend: str, dtype: torch.dtype, rng: np.random.Generator) -> None:
    drawn = draw(rng)
    wide = ops.rotate_images(**drawn, mean=0.5, std=0.25, backend=backend)
    narrow = ops.rotate_images(**drawn, mean=0.5, std=0.25, dtype=dtype, backend=backend)
    assert narrow.dtype == dtype
    # Triton's interpreter truncates where the hardware rounds.
    assert ((narrow.float() - wide).abs() <= torch.finfo(dtype).eps * wide.abs()).all()


def test_no_rows_give_no_images(backend: str, rng: np.random.Generator) -> None:
    assert ops.rotate_images(**draw(rng, batch=0), backend=backend).shape == (0, 1, 24, 24)


def test_strided_choices_are_taken(backend: str, rng: np.random.Generator) -> None:
    drawn = draw(rng, batch=8)
    half = {name: drawn[name][::2] for name in ("rows", "angles", "flips")}
    got = ops.rotate_images(drawn["images"], **half, backend=backend)
    assert torch.allclose(got, ops.rotate_images(**drawn, backend=backend)[::2], atol=1e-6)


def test_passes_opcheck(rng: np.random.Generator) -> None:
    drawn = tuple(draw(rng).values())
    torch.library.opcheck(torch.ops.prior_fast.rotate_images_triton.default, (*drawn, 0.5, 0.2, torch.float32, True))
    if extension.unavailable("cpu") is None:
        torch.library.opcheck(torch.ops.prior_fast.rotate_images.default, (*drawn, 0.5, 0.2, False))


def test_compiles_to_one_graph(backend: str, rng: np.random.Generator) -> None:
    drawn = draw(rng)

    def twice(images: torch.Tensor, rows: torch.Tensor, angles: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
        first = ops.rotate_images(images, rows, angles, flips, backend=backend)
        return first + ops.rotate_images(images, rows, -angles, flips, backend=backend)

    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(**drawn), twice(**drawn), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(3, 4, 4)}, "images has dtype torch.float32, wanted one of uint8"),
        ({"images": torch.zeros(3, 4, 8, dtype=torch.uint8)[:, :, ::2]}, "images is not contiguous"),
        ({"rows": torch.tensor([0, 1, 2, 3])}, r"rows must lie in \[0, 3\), got 0 to 3"),
        ({"rows": torch.tensor([0, -1, 2, 1])}, r"rows must lie in \[0, 3\), got -1 to 2"),
        ({"angles": torch.zeros(3)}, "angles has shape"),
        ({"flips": torch.zeros(4)}, "flips has dtype torch.float32, wanted one of bool"),
        ({"std": 0.0}, "std must be over 0, got 0.0"),
        ({"mean": "x"}, "mean"),
        ({"dtype": torch.float64}, "dtype=torch.float64, wanted one of"),
        ({"interpolation": "cubic"}, "interpolation='cubic', wanted one of bilinear, nearest"),
    ],
)
def test_what_does_not_fit_is_named(backend: str, change: dict, message: str, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match=message):
        ops.rotate_images(**(draw(rng) | change), backend=backend)


def test_the_reference_is_what_serves_without_a_library(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(sys.modules["prior_fast.ops.rotate_images"], "_unavailable", lambda: "it is not built")
    drawn = draw(rng)
    wanted = rotate_images_reference(*drawn.values(), 0.0, 1.0, torch.float32)
    assert torch.equal(ops.rotate_images(**drawn), wanted)
