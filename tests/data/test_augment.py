"""Augmentation against torchvision's own rotation."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from prior_fast.data.augment import augment, normalize


def smooth_image(rng: np.random.Generator, size: int = 64) -> torch.Tensor:
    coarse = torch.tensor(rng.integers(0, 256, (1, 1, 8, 8)), dtype=torch.float32)
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")[0, 0].to(torch.uint8)


@pytest.mark.parametrize("angle", [-5.0, 3.3, 0.0, 90.0])
def test_rotation_is_torchvisions(rng: np.random.Generator, angle: float) -> None:
    image = smooth_image(rng)
    ours = augment(image[None], torch.tensor([angle]), torch.tensor([False]))[0, 0]
    theirs = TF.affine(
        image[None].float() / 255, angle, [0.0, 0.0], 1.0, [0.0, 0.0], interpolation=InterpolationMode.BILINEAR
    )[0]
    assert (ours - theirs).abs().max() < 1e-4


def test_no_rotation_changes_nothing(rng: np.random.Generator) -> None:
    image = torch.tensor(rng.integers(0, 256, (3, 32, 32)), dtype=torch.uint8)
    out = augment(image, torch.zeros(3), torch.tensor([False] * 3))
    assert (out[:, 0] - image.float() / 255).abs().max() < 1e-5


def test_flip_mirrors_after_the_rotation(rng: np.random.Generator) -> None:
    image = smooth_image(rng)
    both = augment(image.expand(2, -1, -1), torch.tensor([4.0, 4.0]), torch.tensor([False, True]))
    assert (both[1, 0] - both[0, 0].flip(-1)).abs().max() < 1e-5


def test_each_image_gets_its_own_angle(rng: np.random.Generator) -> None:
    image = smooth_image(rng)
    angles = torch.tensor([-4.0, 0.0, 5.0])
    together = augment(image.expand(3, -1, -1), angles, torch.tensor([False] * 3))
    for i in range(3):
        alone = augment(image[None], angles[i : i + 1], torch.tensor([False]))
        assert torch.equal(together[i], alone[0])


def test_normalization_gives_z_scores(rng: np.random.Generator) -> None:
    image = torch.tensor(rng.random((1, 1, 50, 50)))
    out = normalize(image, image.mean().item(), image.std().item())
    assert abs(out.mean()) < 1e-6
    assert out.std().item() == pytest.approx(1.0)
