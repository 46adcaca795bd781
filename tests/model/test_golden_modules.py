"""The modules of PRIOR against numbers recorded from the authors' own, outputs and gradients: files 5 to 7 and 9."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prior_fast.model.image_decoder import ImageDecoder, reconstruction_loss
from prior_fast.model.image_encoder import AttentionPool2d, map_to_tokens, tokens_to_map
from prior_fast.model.pooling import SentenceAttentionPool, SentenceGather

# The float64 arrays are stored rounded to float32, which is the second part of the float64 bound.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
Gradients = Callable[[nn.Module], dict[str, Tensor]]
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def load(golden: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(golden / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def leaf(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.tensor(array, dtype=dtype, requires_grad=True)


def fill(module: nn.Module, data: dict[str, np.ndarray], prefix: str, dtype: torch.dtype) -> None:
    module.to(dtype)
    state = {key.removeprefix(prefix): torch.tensor(value) for key, value in data.items() if key.startswith(prefix)}
    module.load_state_dict(state)


def assert_close(actual: Tensor | None, expected: np.ndarray, dtype: torch.dtype, zero: float = 0.0) -> None:
    """Errors are relative to the largest element; `zero` is an absolute bound for values that are structurally zero."""
    assert actual is not None
    want = torch.tensor(expected, dtype=torch.float64).view(actual.shape)
    error = (actual.detach().double() - want).abs().max().item()
    assert error <= TOLERANCE[dtype] * want.abs().max().item() + zero, error


@DTYPES
@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_sentence_gather(golden: Path, pool: str, dtype: torch.dtype, gradients_by_name: Gradients) -> None:
    data = load(golden, "sentence_gather")
    case = {"mean": "avg", "attention": "attention"}[pool]
    module = SentenceGather(64, pool).to(dtype)  # type: ignore[arg-type]
    if pool == "attention":
        fill(module, data, "p.attention_pool.", dtype)
    tokens = leaf(data["tokens"], dtype)
    index = torch.tensor(data["sentence_index"])
    # Sentences in the order of the reports; numbers without a token are skipped.
    owner = torch.where(index > 0, index + 100 * torch.arange(3)[:, None], -1)
    kept = owner.flatten() > 0
    lengths = torch.unique_consecutive(owner.flatten()[kept], return_counts=True)[1]
    cu = torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0).int()])
    output = module(tokens.flatten(0, 1)[kept], cu)
    assert_close(output, data[f"{case}.output"], dtype)
    (output * torch.tensor(data["w"][: len(output)], dtype=dtype)).sum().backward()
    assert_close(tokens.grad, data[f"{case}.g.tokens"], dtype)
    for name, gradient in gradients_by_name(module).items():
        # Softmax ignores a constant, so the gradient of the query's bias is only rounding.
        zero = 3e-5 if name == "query.bias" else 0.0
        assert_close(gradient, data[f"{case}.g.p.attention_pool.{name}"], dtype, zero)


@DTYPES
def test_sentence_attention_pool(golden: Path, dtype: torch.dtype) -> None:
    data = load(golden, "sentence_attention_pool")
    module = SentenceAttentionPool(64, int(data["num_heads"]))
    fill(module, data, "p.", dtype)
    sentences = leaf(data["input"], dtype)
    lengths = torch.tensor(data["lengths"])
    cu = torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0).int()])
    output = module(sentences, cu, int(lengths.max()))
    assert_close(output, data["output"], dtype)
    (output * torch.tensor(data["w"], dtype=dtype)).sum().backward()
    assert_close(sentences.grad, data["g.input"], dtype)
    for name, parameter in module.named_parameters():
        assert_close(parameter.grad, data[f"g.p.{name}"], dtype, 1e-6 if name == "k_proj.bias" else 0.0)


@DTYPES
def test_attention_pool2d(golden: Path, dtype: torch.dtype) -> None:
    data = load(golden, "attention_pool2d")
    module = AttentionPool2d(7, 256, int(data["num_heads"]))
    fill(module, data, "p.", dtype)
    x = leaf(data["input"], dtype)
    output = module(x)
    assert_close(output, data["output"], dtype)
    (output * torch.tensor(data["w"], dtype=dtype)).sum().backward()
    assert_close(x.grad, data["g.input"], dtype)
    for name, parameter in module.named_parameters():
        assert_close(parameter.grad, data[f"g.p.{name}"], dtype, 1e-6 if name == "k_proj.bias" else 0.0)


def run_decoder(
    data: dict[str, np.ndarray], mode: str, dtype: torch.dtype, layout: str
) -> tuple[ImageDecoder, Tensor, Tensor, Tensor]:
    decoder = ImageDecoder(64, "before_relu")
    fill(decoder, data, "p.", dtype)
    decoder.train(mode == "train")
    image, text = leaf(data["tokens_image"], dtype), leaf(data["tokens_text"], dtype)
    output = decoder(tokens_to_map(image, layout), tokens_to_map(text, layout))
    return decoder, image, text, output


@DTYPES
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_image_decoder_in_the_released_layout(golden: Path, mode: str, dtype: torch.dtype) -> None:
    data = load(golden, "image_decoder")
    decoder, image, text, output = run_decoder(data, mode, dtype, "released")
    assert_close(output, data[f"{mode}.output"], dtype)
    loss = reconstruction_loss(output, torch.tensor(data["image"]))
    assert loss.item() == pytest.approx(data[f"{mode}.loss_f64"].item(), rel=1e-6)
    small = reconstruction_loss(output, torch.tensor(data["image_small"]))
    assert small.item() == pytest.approx(data[f"{mode}.loss_small_f64"].item(), rel=1e-6)
    for name in decoder.state_dict():
        if mode == "train" and f"train.after.{name}" in data:
            assert_close(decoder.state_dict()[name], data[f"train.after.{name}"], dtype)
    # The loss's own precision is float32; the recorded gradients come from a float64 one.
    (output - torch.tensor(data["image"], dtype=dtype)).abs().mean().backward()
    # Where float32 rounding flips the sign of a difference near zero, the gradient of that pixel flips with it.
    zero = 1e-3 * abs(data[f"{mode}.g.p.output_head.0.bias"]).max() if dtype == torch.float32 else 1e-12
    assert_close(image.grad, data[f"{mode}.g.tokens_image"], dtype, zero)
    assert_close(text.grad, data[f"{mode}.g.tokens_text"], dtype, zero)
    for name, parameter in decoder.named_parameters():
        assert_close(parameter.grad, data[f"{mode}.g.p.{name}"], dtype, zero)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_image_decoder_in_the_plain_layout(golden: Path, mode: str) -> None:
    """Tokens that hold the recorded maps in the plain layout give the recorded output."""
    data = load(golden, "image_decoder")
    for name in ("tokens_image", "tokens_text"):
        recorded = tokens_to_map(torch.tensor(data[name]), "released")
        data[name] = map_to_tokens(recorded, "patches").numpy()
    *_, output = run_decoder(data, mode, torch.float64, "patches")
    assert_close(output, data[f"{mode}.output"], torch.float64)


def test_layouts_place_channels_and_positions() -> None:
    x = torch.arange(2 * 3 * 4).view(1, 6, 2, 2)
    tokens = map_to_tokens(x, "patches")
    assert torch.equal(tokens[0, 1], x[0, :, 0, 1])
    assert torch.equal(tokens_to_map(tokens, "patches"), x)
    assert torch.equal(map_to_tokens(x, "released").flatten(), x.flatten())
    assert torch.equal(tokens_to_map(map_to_tokens(x, "released"), "released"), x)
