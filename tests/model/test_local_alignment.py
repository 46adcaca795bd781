"""The local alignment module: its attention; the SimSiam loss, its gradient and precision; the predictor's start."""

import numpy as np
import pytest
import torch
from torch import Tensor

from prior_fast.model.local_alignment import LocalCrossAttention, SimSiamPredictor, simsiam_loss


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


@pytest.mark.parametrize("side", ["a", "b"])
def test_simsiam_sends_no_gradient_into_its_targets(side: str, rng: np.random.Generator) -> None:
    """The gradient of each side comes from its prediction alone; the other side is a constant there."""
    predictor = SimSiamPredictor(8).double()
    a, b = (torch.tensor(rng.normal(size=(2, 5, 8)), requires_grad=True) for _ in range(2))
    x, other = (a, b) if side == "a" else (b, a)
    (gradient,) = torch.autograd.grad(simsiam_loss(a, b, predictor), x)
    towards = -cosine_of_rows(predictor(x), other.detach()) / 2
    (expected,) = torch.autograd.grad(towards, x)
    torch.testing.assert_close(gradient, expected)


@torch.no_grad()
def test_local_attention_is_a_sigmoid_of_products_over_the_root_of_the_width(rng: np.random.Generator) -> None:
    """Not a softmax: weights of a row do not sum to 1. Contexts and weights, in both directions, report by report."""
    width, lengths = 12, (3, 1, 4)
    attention = LocalCrossAttention(width).double()
    image, text = torch.tensor(rng.normal(size=(3, 6, width))), torch.tensor(rng.normal(size=(8, width)))
    cu = torch.tensor([0, 3, 4, 8], dtype=torch.int32)
    context = attention(image, text, cu, 4)
    over_image, over_text = attention.weights(image, text, cu, 4)
    layers = attention.state_dict()

    def project(x: Tensor, name: str) -> Tensor:
        return x @ layers[f"{name}.weight"].T + layers[f"{name}.bias"]

    for report, sentences in enumerate(text.split(lengths)):
        patches = image[report]
        for_text = torch.sigmoid(project(sentences, "query2") @ project(patches, "key1").T / width**0.5)
        for_image = torch.sigmoid(project(patches, "query1") @ project(sentences, "key2").T / width**0.5)
        torch.testing.assert_close(over_image[report, : len(sentences)], for_text)
        torch.testing.assert_close(over_text[report, :, : len(sentences)], for_image)
        torch.testing.assert_close(context.for_image[report], for_image @ project(sentences, "value2"))
        rows = context.for_text[cu[report] : cu[report + 1]]
        torch.testing.assert_close(rows, for_text @ project(patches, "value1"))
