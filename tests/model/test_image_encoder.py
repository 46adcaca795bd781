"""Images are averaged as torch's pooling does, to the last bit."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from prior_fast.model.image_encoder import averaged


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width"), [(2, 2), (6, 10), (7, 10), (6, 11), (224, 224)])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_equals_torchs_pooling(
    size: int, height: int, width: int, layout: torch.memory_format, dtype: torch.dtype, rng: np.random.Generator
) -> None:
    if min(height, width) < size:
        pytest.skip("no square")
    images = torch.tensor(rng.normal(size=(3, 2, height, width)), dtype=dtype).contiguous(memory_format=layout)
    before = images.clone()
    assert torch.equal(averaged(images, size), F.avg_pool2d(images, size))
    assert torch.equal(images, before)


def test_gradient_equals_torchs(rng: np.random.Generator) -> None:
    images = torch.tensor(rng.normal(size=(2, 1, 8, 6))).requires_grad_()
    weights = torch.tensor(rng.normal(size=(2, 1, 4, 3)))
    ours, theirs = (torch.autograd.grad((f(images, 2) * weights).sum(), images)[0] for f in (averaged, F.avg_pool2d))
    torch.testing.assert_close(ours, theirs)
