"""Steps whose products use the copies of weights that the optimizer writes."""

import copy
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from prior_fast.config import apply_overrides, preset
from prior_fast.errors import UsageError
from prior_fast.kernels import adam
from prior_fast.model.prior import PRIORModel
from prior_fast.training import cuda_graphs, recorded_text
from prior_fast.training.distributed import Ranks
from prior_fast.training.fused_adam import FusedAdam
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer, fuses_optimizer
from tests.training.test_cuda_graphs import Computed
from tests.training.test_no_syncs import make_batch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes as long for a piece of 16,384 numbers as for one of 512."""
    for name in ("ADAM_BLOCK", "NORM_BLOCK"):
        monkeypatch.setattr(adam, name, adam.CHUNK)


def trainers(settings: list[str], stage: int) -> tuple[StageTrainer, StageTrainer]:
    """Equal models with the project's optimizer and with torch's."""
    torch.manual_seed(0)
    config = apply_overrides(preset("tiny"), settings)
    model = PRIORModel(config.model, vocab_size=50).train()
    return tuple(
        StageTrainer(
            copy.deepcopy(model), stage, apply_overrides(config, [f"optimizer_kernel={kind}"]), Ranks(0, 1, None, CPU)
        )
        for kind in ("triton", "torch")
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_copies_replace_the_casts_of_recorded_parts(
    stage: int, small_settings: list[str], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graphs, "Recorded", Computed)
    monkeypatch.setattr(recorded_text, "Recorded", Computed)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    own, other = trainers([*small_settings, "compile=on", "precision=bf16"], stage)
    own.records = other.records = True  # as on a GPU
    for number in range(3):
        batch, context = make_batch(rng), StepContext(0.5, number)
        found, wanted = (each.step(batch, context, 1e-3) for each in (own, other))
        # Later, weights may differ by the last digit of float32, and single copies by that of bfloat16.
        tolerance = {"rel": 0, "abs": 0} if number == 0 else {"rel": 0.01, "abs": 0.01}
        shared = [name for name in found if name != "gradient_norm"]
        assert {name: found[name].item() for name in shared} == pytest.approx(
            {name: wanted[name].item() for name in shared}, **tolerance
        )
        assert found["gradient_norm"].item() == pytest.approx(
            wanted["gradient_norm"].item(), rel=1e-5 if not number else 0.05
        )
        assert isinstance(own.optimizer, FusedAdam) and own.parts is not None and own.parts.copies is not None
        copies = own.optimizer.copies
        assert copies.keys() == own.parts.copies.by_weight.keys() and len(copies) > 10
        for weight, narrow in copies.items():
            # The interpreter cuts off the digits that a GPU rounds. Rounded here, the next step's are those of torch.
            torch.testing.assert_close(narrow.float(), weight.detach(), rtol=2**-7, atol=0)
            with torch.no_grad():
                narrow.copy_(weight)
        if number:
            continue
        factor = min(1.0, own.config.clip_norm / (wanted["gradient_norm"].item() + 1e-6))
        for name, parameter in own.parameters.items():
            gradient, clipped = copies.get(parameter, parameter).grad, other.parameters[name].grad
            assert (gradient is None) == (clipped is None), name
            if gradient is None or clipped is None:
                continue
            assert gradient.dtype == (torch.bfloat16 if parameter in copies else torch.float32)
            torch.testing.assert_close(gradient.float() * factor, clipped, rtol=1e-5, atol=1e-12, msg=name)
            assert (parameter in copies) == (parameter.grad is None)
            torch.testing.assert_close(parameter, other.parameters[name], rtol=1e-4, atol=1e-5, msg=name)
    # A change from outside reaches the copies at the next step.
    weight, narrow = next(iter(own.parts.copies.by_weight.items()))
    with torch.no_grad():
        weight.mul_(3)
    own.parts.prepare(make_batch(rng))
    assert torch.equal(narrow, weight.bfloat16())
    own.close()
    other.close()


@pytest.mark.slow
def test_the_losses_of_fifty_steps_are_those_of_torchs_optimizer(
    small_settings: list[str], rng: np.random.Generator
) -> None:
    # The paper's learning rate. With ten times as much, roundings grow to 1e-3 of a loss within forty steps.
    own, other = trainers([*small_settings, "precision=fp32"], 3)
    batches = [make_batch(rng) for _ in range(4)]
    for number in range(50):
        found, wanted = (each.step(batches[number % 4], StepContext(0.5, number), 1e-5) for each in (own, other))
        # The norm of the gradient is no loss: a rounding that changes the side of one ReLU changes it by percents.
        norms = [float(terms.pop("gradient_norm")) for terms in (found, wanted)]
        assert norms[0] == pytest.approx(norms[1], rel=0.05), number
        assert {name: x.item() for name, x in found.items()} == pytest.approx(
            {name: x.item() for name, x in wanted.items()}, rel=1e-3, abs=1e-3
        ), number
    first = trainers([*small_settings, "precision=fp32"], 3)[1]
    for name, parameter in own.parameters.items():
        torch.testing.assert_close(parameter, other.parameters[name], rtol=1e-2, atol=1e-3, msg=name)
    moved = [name for name, x in first.parameters.items() if not torch.allclose(x, own.parameters[name], atol=1e-4)]
    assert len(moved) > 0.9 * len(own.parameters)


def parameter(device: str, dtype: torch.dtype = torch.float32) -> Any:
    """Stands for a parameter on any device."""
    return SimpleNamespace(device=torch.device(device), dtype=dtype)


@pytest.mark.parametrize(
    ("device", "setting", "found"),
    [
        ("cuda", "auto", True),
        ("cuda", "torch", False),
        ("cuda", "triton", True),
        ("cpu", "auto", False),
        ("cpu", "torch", False),
    ],
)
def test_where_the_kernels_update(device: str, setting: str, found: bool) -> None:
    config = apply_overrides(preset("paper"), [f"optimizer_kernel={setting}"])
    assert fuses_optimizer(config, parameter(device)) is found


def test_where_they_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    config = apply_overrides(preset("paper"), ["optimizer_kernel=triton"])
    with pytest.raises(UsageError, match=r"optimizer_kernel=triton: it takes float32, .*auto takes torch's"):
        fuses_optimizer(config, parameter("cuda", torch.float64))
    auto = apply_overrides(preset("paper"), ["optimizer_kernel=auto"])
    assert not fuses_optimizer(auto, parameter("cuda", torch.float64))
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(UsageError, match="optimizer_kernel=triton: it runs on GPUs"):
        fuses_optimizer(config, parameter("cpu"))
