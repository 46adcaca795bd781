"""The upsampled convolution by the Triton kernels, as a layer and in the losses of stage 3."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from prior_fast.config import apply_overrides, preset
from prior_fast.model.prior import PRIORModel
from prior_fast.model.upsampled_conv import UpsampledConv2d
from prior_fast.ops.upsampled_conv import upsampled_conv
from prior_fast.training.distributed import Ranks
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer
from tests.small_model import SMALL_MODEL
from tests.training.four_pairs import four_pairs


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.dtype, torch.Size]]:
    """The inputs of the op's calls."""
    found: list[tuple[torch.dtype, torch.Size]] = []

    def watched(x: torch.Tensor, *arguments: object, **options: object) -> object:
        found.append((x.dtype, x.shape))
        return upsampled_conv(x, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("prior_fast.model.upsampled_conv.upsampled_conv", watched)
    return found


def layers_of(module: nn.Module) -> list[UpsampledConv2d]:
    return [layer for layer in module.modules() if isinstance(layer, UpsampledConv2d)]


@pytest.mark.parametrize("bias", [False, True])
def test_the_layer_computes_the_same(bias: bool, calls: list[object]) -> None:
    torch.manual_seed(0)
    layer = UpsampledConv2d(5, 3, bias)
    x = torch.randn(2, 5, 4, 3, requires_grad=True)
    results = []
    for layer.backend in ("cudnn", "triton"):
        y = layer(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert len(calls) == 1


def test_autocast_makes_the_operands_narrow(calls: list[object]) -> None:
    torch.manual_seed(0)
    layer = UpsampledConv2d(16, 16, bias=True)
    layer.backend = "triton"
    x = torch.randn(2, 16, 4, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.sum().backward()
    assert calls == [(torch.bfloat16, x.shape)] and y.dtype == torch.bfloat16
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32 == x.grad.dtype  # type: ignore[union-attr]


def test_what_the_kernels_cannot_take_is_left_to_torch(calls: list[object]) -> None:
    layer = UpsampledConv2d(2, 3).double()
    layer.backend = "triton"
    assert layer(torch.zeros(1, 2, 3, 3).double()).dtype == torch.float64 and not calls


def test_the_backend_is_no_state() -> None:
    layer, twin = UpsampledConv2d(2, 3), UpsampledConv2d(2, 3)
    layer.backend = "triton"
    twin.load_state_dict(layer.state_dict())
    assert twin.backend == "cudnn" and copy.deepcopy(layer).backend == "triton"


def test_a_step_of_stage_3_has_the_same_losses_and_gradients(rng: np.random.Generator, calls: list[object]) -> None:
    config = apply_overrides(
        preset("tiny"), [*SMALL_MODEL, "compile=off", "model.decoder_width=8", "model.decoder_blocks=2"]
    )
    ranks = Ranks(0, 1, None, torch.device("cpu"))
    torch.manual_seed(0)
    model = PRIORModel(config.model, vocab_size=50).train()
    twin = copy.deepcopy(model)
    for layer in layers_of(twin):
        layer.backend = "triton"
    batch = four_pairs(rng)
    batch = dataclasses.replace(batch, images=batch.images.float())
    found, wanted = (StageTrainer(own, 3, config, ranks) for own in (twin, model))
    terms = [trainer.evaluate(batch, StepContext(0.5, 0)) for trainer in (found, wanted)]
    assert len(calls) == 2 == len(layers_of(model))
    for name, value in terms[1].items():
        assert terms[0][name].item() == pytest.approx(value.item(), rel=1e-5), name
    for own in terms:
        own["loss"].backward()
    for name, parameter in found.parameters.items():
        other = wanted.parameters[name].grad
        if other is None:
            assert parameter.grad is None
            continue
        # A value on the other side of zero, by a rounding, changes the gradient of its ReLU.
        assert (parameter.grad - other).norm() <= 1e-3 * other.norm() + 1e-6, name  # type: ignore[operator]
    for trainer in (found, wanted):
        trainer.close()
