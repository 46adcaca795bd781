"""The SimSiam loss: its precision and the starting weights of its predictor."""

import numpy as np
import pytest
import torch
from torch import Tensor

from prior_fast.model.local_alignment import SimSiamPredictor, simsiam_loss


def cosine_of_rows(a: Tensor, b: Tensor) -> Tensor:
    return ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).mean()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_simsiam_in_half_precision_is_a_float32_loss(dtype: torch.dtype, rng: np.random.Generator) -> None:
    """Only the inputs and the predictor are rounded: the cosines are as exact as in float32."""
    torch.manual_seed(1)
    predictor = SimSiamPredictor(32).to(dtype)
    a, b = (torch.tensor(rng.normal(size=(3, 7, 32))).to(dtype) for _ in range(2))
    loss = simsiam_loss(a, b, predictor)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = (
        -(cosine_of_rows(predictor(a).double(), b.double()) + cosine_of_rows(predictor(b).double(), a.double())) / 2
    )
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_predictor_starts_as_the_released_one() -> None:
    """The first layer has a standard deviation of D^-0.5; the second is torch's default, uniform."""
    torch.manual_seed(2)
    predictor = SimSiamPredictor(768)
    assert predictor[0].weight.std().item() == pytest.approx(768**-0.5, rel=0.01)
    assert predictor[0].weight.abs().max() > 4 * 768**-0.5
    assert predictor[2].weight.abs().max() <= 384**-0.5
