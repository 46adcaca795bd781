"""Attention alignment: its value and gradient, what it trains, and the bias of the attention at the start."""

import numpy as np
import pytest
import torch
from torch import Tensor

from prior_fast.config import ModelConfig
from prior_fast.model.attention_alignment import attention_alignment, log_mean_weights
from prior_fast.model.local_alignment import LocalCrossAttention

WIDTH = 16


def by_pairs(attention: LocalCrossAttention, image: Tensor, text: Tensor, owners: list[int]) -> Tensor:
    """The loss, computed from the weights of one image and one sentence at a time."""
    one = torch.tensor([0, 1], dtype=torch.int32)
    scores = []
    for sentence in text:
        for own in image:
            over_image, over_text = attention.weights(own[None], sentence[None], one, 1)
            scores.append((over_image.mean() + over_text.mean()) / 2)
    shares = torch.stack(scores).view(len(text), len(image))
    chosen = shares[torch.arange(len(text)), owners] / shares.sum(dim=1)
    return -torch.log(chosen).mean()


@pytest.mark.parametrize("lengths", [(3, 1, 4), (1,), (2, 5)])
def test_the_loss_is_that_of_single_pairs(lengths: tuple[int, ...], rng: np.random.Generator) -> None:
    """The mean weight of each pair, normalized over the images of the batch; value and gradients in float64."""
    attention = LocalCrossAttention(WIDTH, bias=-2.0).double()
    image = torch.tensor(rng.normal(size=(len(lengths), 6, WIDTH)), requires_grad=True)
    text = torch.tensor(rng.normal(size=(sum(lengths), WIDTH)), requires_grad=True)
    cu = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    owners = [report for report, length in enumerate(lengths) for _ in range(length)]
    loss, expected = attention_alignment(attention, image, text, cu), by_pairs(attention, image, text, owners)
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(value, (image, text)) for value in (loss, expected))
    torch.testing.assert_close(found, wanted)


def test_a_single_image_leaves_nothing_to_choose(rng: np.random.Generator) -> None:
    attention = LocalCrossAttention(WIDTH)
    image = torch.tensor(rng.normal(size=(1, 4, WIDTH)), dtype=torch.float32)
    text = torch.tensor(rng.normal(size=(3, WIDTH)), dtype=torch.float32)
    assert attention_alignment(attention, image, text, torch.tensor([0, 3])).item() == pytest.approx(0, abs=1e-6)


def test_it_puts_the_attention_on_the_patch_that_differs() -> None:
    """Images differ in one patch only, whose place changes with the image. A sentence names what the patch shows.

    Trained on some images, the attention over others has its maximum at this patch, and is small elsewhere.
    """
    torch.manual_seed(3)
    kinds = torch.nn.functional.normalize(torch.randn(4, WIDTH), dim=1) * WIDTH**0.5
    attention = LocalCrossAttention(WIDTH, bias=-2.0)
    optimizer = torch.optim.Adam(attention.parameters(), lr=1e-2)

    def draw() -> tuple[Tensor, Tensor]:
        place = torch.randint(9, (4,))
        image = 0.3 * torch.randn(4, 9, WIDTH)
        image[torch.arange(4), place] += kinds
        return image, place

    cu = torch.arange(5, dtype=torch.int32)
    for _ in range(150):
        image, _ = draw()
        optimizer.zero_grad()
        attention_alignment(attention, image, kinds, cu).backward()
        optimizer.step()
    image, place = draw()
    with torch.no_grad():
        weights = torch.stack([part.flatten(1) for part in attention.weights(image, kinds, cu, 1)]).mean(dim=0)
    inside = weights[torch.arange(4), place]
    outside = (weights.sum(dim=1) - inside) / 8
    assert weights.argmax(dim=1).tolist() == place.tolist()
    assert (inside > 2 * outside).all()


def test_half_precision_has_a_float32_loss(rng: np.random.Generator) -> None:
    attention = LocalCrossAttention(WIDTH).bfloat16()
    image, text = (torch.tensor(rng.normal(size=shape)).bfloat16() for shape in ((2, 5, WIDTH), (4, WIDTH)))
    logits = log_mean_weights(attention, image, text)
    assert logits.dtype == torch.float32
    wide = LocalCrossAttention(WIDTH).double()
    wide.load_state_dict({name: value.double() for name, value in attention.state_dict().items()})
    torch.testing.assert_close(
        logits.double(), log_mean_weights(wide, image.double(), text.double()), atol=0.02, rtol=0
    )


@pytest.mark.parametrize("bias", [0.0, -0.7, -3.9])
def test_the_bias_is_that_of_the_logits_at_the_start(bias: float) -> None:
    """With inputs of zero, each weight is the sigmoid of the bias."""
    torch.manual_seed(4)
    attention = LocalCrossAttention(64, bias=bias)
    if bias == 0:  # torch's own biases, whose product is small
        for side in (attention.image, attention.text):
            assert side.bias.std() > 0.01
        return
    one = torch.tensor([0, 1], dtype=torch.int32)
    for weights in attention.weights(torch.zeros(1, 4, 64), torch.zeros(1, 64), one, 1):
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / (1 + np.exp(-bias))))


def test_weights_that_round_to_zero_have_a_finite_loss() -> None:
    """Logits near -200, whose sigmoid is 0 in float32: all images are equal, and no gradient is nan."""
    attention = LocalCrossAttention(WIDTH, bias=-200.0)
    torch.manual_seed(5)
    image, text = torch.randn(2, 3, WIDTH, requires_grad=True), torch.randn(2, WIDTH)
    loss = attention_alignment(attention, image, text, torch.tensor([0, 1, 2], dtype=torch.int32))
    (gradient,) = torch.autograd.grad(loss, image)
    assert loss.item() == pytest.approx(np.log(2))
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("attention", "local", "expected"), [("sigmoid", True, True), ("softmax", True, False), ("sigmoid", False, False)]
)
def test_only_sigmoid_attention_that_is_trained_has_the_term(attention, local: bool, expected: bool) -> None:
    config = ModelConfig(attention=attention, use_local_alignment=local, use_attention_alignment=True)
    assert config.aligns_attention == expected
    assert not ModelConfig(attention=attention, use_local_alignment=local).aligns_attention
