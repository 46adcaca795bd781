"""Parts of a step at once: the results and gradients of parts in order, in the caller's modes, with errors told."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from prior_fast.batch import PackedBatch
from prior_fast.config import apply_overrides, preset
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.model.prior import PRIORModel
from prior_fast.training.branches import Branches, Tensors
from prior_fast.training.distributed import Ranks
from prior_fast.training.stages import STAGES, StepContext
from prior_fast.training.step import StageTrainer
from prior_fast.training.validate import validate


@pytest.fixture
def branches() -> Iterator[Branches]:
    made = Branches()
    yield made
    made.close()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("without", ["", "model.use_local_alignment=false", "model.use_bank=false"])
def test_a_stage_has_the_terms_and_gradients_of_one_without_branches(
    stage: int, without: str, batch: PackedBatch, small_settings: list[str], branches: Branches
) -> None:
    config = apply_overrides(preset("tiny"), [*small_settings, *filter(None, [without])]).model
    found = []
    for used in (None, branches):
        torch.manual_seed(0)
        model = PRIORModel(config, vocab_size=50).double().train()
        terms = STAGES[stage](model, batch, StepContext(0.5, seed=3, branches=used))
        torch.stack([term * (number + 1) for number, term in enumerate(terms.values())]).sum().backward()
        gradients = {name: x.grad for name, x in model.named_parameters() if x.grad is not None}
        found.append((terms, gradients, dict(model.named_buffers())))
    for alone, together in zip(*found):
        assert list(alone) == list(together)
        for name in alone:
            torch.testing.assert_close(alone[name], together[name], rtol=1e-9, atol=1e-11, msg=name)
    assert any(gradient.abs().max() > 1e-3 for gradient in found[1][1].values())


def test_gradients_of_shared_inputs_and_parameters_are_added(branches: Branches, rng: np.random.Generator) -> None:
    x, y, w = (torch.tensor(rng.normal(size=4), requires_grad=True) for _ in range(3))

    def one(x: Tensor, y: Tensor) -> Tensors:
        return {"a": x * y * w, "unused": x * 3, "constant": torch.ones(2)}

    def other(x: Tensor, y: Tensor) -> Tensors:
        return {"b": (x * w).exp()}

    def total(first: Tensors, second: Tensors) -> Tensor:
        return (first["a"] * 2).sum() + (second["b"] * first["a"]).sum() + first["constant"].sum()

    inputs = {"x": x * 2, "y": y.detach()}
    results = branches.run(one, other, inputs, w)
    assert not results[0]["constant"].requires_grad or results[0]["constant"].grad_fn is not None
    got = torch.autograd.grad(total(*results), (x, w), allow_unused=True)
    # Parameters get their gradients in the branches, and `autograd.grad` of the outside does not see them.
    assert got[1] is None
    expected = torch.autograd.grad(total(one(x * 2, y.detach()), other(x * 2, y.detach())), (x, w))
    torch.testing.assert_close(got[0], expected[0])
    assert w.grad is not None
    torch.testing.assert_close(w.grad, expected[1])
    assert y.grad is None


def test_branches_run_in_two_threads_in_the_modes_of_the_caller(branches: Branches, two_threads: None) -> None:
    met = threading.Barrier(2, timeout=60)

    def state() -> tuple[str, bool, bool, torch.dtype, int]:
        met.wait()  # a branch alone would wait in vain
        autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        return threading.current_thread().name, torch.is_grad_enabled(), *autocast, torch.get_num_threads()

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        one, other = branches.at_once(state, state)
    assert one[0] != other[0] and one[1:] == other[1:] == (False, True, torch.bfloat16, 1)
    one, other = branches.at_once(state, state)
    assert one[1:3] == other[1:3] == (True, False)
    assert torch.get_num_threads() == 2


def test_without_gradients_nothing_is_kept_for_a_backward_pass(branches: Branches, rng: np.random.Generator) -> None:
    x, w = (torch.tensor(rng.normal(size=4), requires_grad=True) for _ in range(2))
    kept: list[Tensor] = []

    def scaled(x: Tensor) -> Tensors:
        kept.append(x * w)
        return {"y": kept[-1]}

    with torch.no_grad():
        one, other = branches.run(scaled, scaled, {"x": x}, w)
    assert [y.requires_grad for y in (one["y"], other["y"], *kept)] == [False] * 4
    torch.testing.assert_close(one["y"], x * w, check_stride=False)


def test_validation_with_branches_finds_the_same_values(
    small_settings: list[str], branches: Branches, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits: list[bool] = []
    run = branches.run
    monkeypatch.setattr(branches, "run", lambda *parts: splits.append(True) or run(*parts))
    config = apply_overrides(preset("tiny"), small_settings)
    dataset = PreparedDataset.open(small_store, "test")
    torch.manual_seed(2)
    model = PRIORModel(config.model, dataset.vocab_size)
    for stage in (1, 3):
        data = dataset, config, stage, 0.5, torch.device("cpu")
        alone, together = validate(model, *data), validate(model, *data, branches)
        assert alone.keys() == together.keys() and alone["loss"] > 0
        assert together == pytest.approx(alone, rel=1e-5) and splits
        splits.clear()


@pytest.mark.parametrize("fails", [0, 1])
def test_an_error_of_a_branch_is_raised_when_both_have_ended(fails: int, branches: Branches) -> None:
    ended = []

    def good() -> None:
        ended.append(True)

    def bad() -> None:
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        branches.at_once(*((bad, good) if fails == 0 else (good, bad)))
    assert ended == [True]
    assert branches.at_once(lambda: 1, lambda: 2) == [1, 2]


def test_steps_have_branches_on_a_cpu_with_two_threads_only(small_settings: list[str], two_threads: None) -> None:
    config = apply_overrides(preset("tiny"), small_settings)
    model, ranks = PRIORModel(config.model, 50), Ranks(0, 1, None, torch.device("cpu"))
    trainer = StageTrainer(model, 1, config, ranks)
    assert trainer.branches is not None
    trainer.close()
    torch.set_num_threads(1)
    assert StageTrainer(model, 1, config, ranks).branches is None
    torch.set_num_threads(2)
    compiled = dataclasses.replace(config, compile="on")
    assert StageTrainer(model, 1, compiled, ranks).branches is None
