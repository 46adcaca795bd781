"""Recorded parts in a compiled step: on a CPU with a recording that computes, on a GPU with CUDA graphs."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prior_fast.config import apply_overrides, preset
from prior_fast.errors import UsageError
from prior_fast.model.prior import PRIORModel
from prior_fast.training import cuda_graphs
from prior_fast.training.cuda_graphs import Replayed
from prior_fast.training.distributed import Ranks
from prior_fast.training.recorded import Form, Function, Recorded, apart, recordings
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer, records_parts
from tests.training.test_no_syncs import make_batch


def outside(call: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
    """`call` in a separate thread, since autograd is not available inside an op."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


class Computed(Recorded):
    """Stands for a CUDA graph: computes its outputs at each replay."""

    def _record(self, function: Function, context: AbstractContextManager) -> None:
        self.context = context
        self.outputs = [x.detach() for x in self._forward(function, context)]
        self.douts = [torch.zeros_like(x) for x in self.outputs]
        self.gradients = self._gradients()

    def _gradients(self) -> Sequence[Tensor]:
        self.kept = self._forward(self.function, self.context)
        return torch.autograd.grad(self.kept, [*self.wanted, *self.parameters], self.douts)

    @torch.no_grad()
    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        torch._foreach_copy_(self.inputs, list(inputs))
        self.kept = outside(lambda: self._forward(self.function, self.context))
        return [x.detach().clone() for x in self.kept]

    @torch.no_grad()
    def backward(self, douts: Sequence[Tensor]) -> list[Tensor]:
        return apart(outside(lambda: torch.autograd.grad(self.kept, [*self.wanted, *self.parameters], list(douts))))


class Part(nn.Module):
    """Two inputs, two outputs, a parameter without a gradient, and statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(4, 3), nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.second.bias.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.first(a) * self.second(b).tanh())
        return x, x.square().mean(0)


class Joined(Part):
    """Joins both inputs in one tensor, so that their gradients are parts of one tensor."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([a, b])
        return both.exp(), both.square().sum() + sum(p.sum() for p in self.parameters())


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.part = nn.Linear(4, 4), Part()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        x, y = self.part(a, self.before(b))
        return x.exp().mean() + y.sum()


def gradients(model: nn.Module, call: nn.Module, a: Tensor, b: Tensor) -> list[Tensor]:
    loss = call(a, b)
    loss.backward()
    found = [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
    model.zero_grad(set_to_none=True)
    return found


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> tuple[Whole, Whole, Replayed]:
    """A model, its twin whose part is replayed, and the replay."""
    monkeypatch.setattr(cuda_graphs, "Recorded", Computed)
    torch.manual_seed(0)
    torch._dynamo.reset()
    plain = Whole()
    twin = copy.deepcopy(plain)
    inputs = [torch.randn(6, 4), torch.randn(6, 4).requires_grad_()]
    return plain, twin, Replayed("part", twin.part, inputs, nullcontext())


def test_a_compiled_step_replays_and_its_gradients_are_the_same(pair: tuple[Whole, Whole, Replayed]) -> None:
    plain, twin, replayed = pair
    assert all(map(torch.equal, twin.state_dict().values(), plain.state_dict().values()))
    compiled = torch.compile(twin, dynamic=True, backend="aot_eager")
    for _ in range(3):
        a, b = torch.randn(2, 6, 4)
        found, wanted = gradients(twin, compiled, a, b), gradients(plain, plain, a, b)
        torch.testing.assert_close(found, wanted)
        assert len(found) == 8
        torch.testing.assert_close(replayed.recorded.inputs[0], a)
        for own, other in zip(twin.buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(own, other)
    assert int(twin.part.norm.num_batches_tracked) == 3


def test_other_calls_are_not_replayed(pair: tuple[Whole, Whole, Replayed], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, twin, replayed = pair
    monkeypatch.setattr(replayed.recorded, "forward", lambda inputs: pytest.fail("replayed"))
    compiled = torch.compile(twin, dynamic=True, backend="aot_eager")
    a, b = torch.randn(2, 5, 4)
    torch.testing.assert_close(gradients(twin, compiled, a, b), gradients(plain, plain, a, b))  # another size
    a, b = torch.randn(2, 6, 4)
    torch.testing.assert_close(gradients(twin, twin, a, b), gradients(plain, plain, a, b))  # not compiled
    with torch.no_grad():
        torch.testing.assert_close(compiled(a, b), plain(a, b))
    torch.testing.assert_close(twin.eval()(a, b), plain.eval()(a, b))
    other = copy.deepcopy(twin).train()
    recompiled = torch.compile(other, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(gradients(other, recompiled, a, b), gradients(plain.train(), plain, a, b))  # a copy


def test_gradients_that_share_memory_are_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "Recorded", Computed)
    torch._dynamo.reset()
    plain = Whole()
    plain.part = Joined()
    twin = copy.deepcopy(plain)
    inputs = [torch.randn(6, 4).requires_grad_() for _ in range(2)]
    replayed = Replayed("joined", twin.part, inputs, nullcontext())
    a, b = torch.randn(2, 6, 4)
    compiled = torch.compile(twin, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(gradients(twin, compiled, a, b), gradients(plain, plain, a, b))
    assert all(x.abs().sum() > 0 for x in replayed.recorded.inputs)
    whole = torch.arange(6.0)
    found = apart([whole[:2], whole[2:], torch.ones(3)])
    assert len({x.untyped_storage().data_ptr() for x in found}) == 3
    assert [x.tolist() for x in found] == [[0, 1], [2, 3, 4, 5], [1, 1, 1]]


def test_a_closed_part_is_the_module_that_it_was(pair: tuple[Whole, Whole, Replayed]) -> None:
    _, twin, replayed = pair
    assert "forward" in vars(twin.part)
    replayed.close()
    replayed.close()
    assert "forward" not in vars(twin.part)


def test_recordings_of_one_name_are_kept_apart(pair: tuple[Whole, Whole, Replayed]) -> None:
    *_, replayed = pair
    inputs = [torch.randn(6, 4), torch.randn(6, 4)]
    second = Replayed("part", Whole().part, inputs, nullcontext())
    names = {replayed.name, second.name}
    assert len(names) == 2
    assert {id(recordings[name]) for name in names} == {id(replayed.recorded), id(second.recorded)}
    second.close()
    assert second.name not in recordings and replayed.name in recordings


@pytest.mark.gpu
@pytest.mark.parametrize("half", [False, True])
def test_cuda_graphs_compute_what_the_module_computes(half: bool) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    plain = Whole().cuda()
    twin = copy.deepcopy(plain)
    context = torch.autocast("cuda", torch.bfloat16, enabled=half, cache_enabled=False)
    inputs = [torch.randn(6, 4, device="cuda"), torch.randn(6, 4, device="cuda").requires_grad_()]
    replayed = Replayed("part", twin.part, inputs, context)
    compiled = torch.compile(twin, dynamic=True)
    for _ in range(4):
        a, b = torch.randn(2, 6, 4, device="cuda")
        with context:
            found = gradients(twin, compiled, a, b)
            wanted = gradients(plain, torch.compile(plain), a, b)
        torch.testing.assert_close(found, wanted, rtol=5e-2 if half else 1e-4, atol=5e-2 if half else 1e-5)
        torch.testing.assert_close(replayed.recorded.inputs[0], a)
    assert int(twin.part.norm.num_batches_tracked) == 4


@pytest.mark.parametrize(
    ("device", "settings", "grouped", "found"),
    [
        ("cuda", [], False, True),
        ("cuda", ["cuda_graphs=on"], False, True),
        ("cuda", ["cuda_graphs=off"], False, False),
        ("cuda", [], True, False),
        ("cuda", ["compile=off"], False, False),
        ("cpu", ["compile=on"], False, False),
        ("cuda", ["cuda_graphs=on"], True, "several processes"),
        ("cuda", ["cuda_graphs=on", "compile=off"], False, "compile=off"),
        ("cpu", ["cuda_graphs=on"], False, "device=cpu"),
    ],
)
def test_when_parts_are_recorded(device: str, settings: list[str], grouped: bool, found: bool | str) -> None:
    config = apply_overrides(preset("paper"), settings)
    ranks = Ranks(0, 2 if grouped else 1, object() if grouped else None, torch.device(device))  # type: ignore[arg-type]
    if isinstance(found, str):
        with pytest.raises(UsageError, match=f"cuda_graphs=on does not go with {found}: .*auto"):
            records_parts(config, ranks)
    else:
        assert records_parts(config, ranks) is found


def test_a_form_is_a_tensor_but_for_its_values() -> None:
    x = torch.randn(2, 3, 4).transpose(0, 2)
    form = Form.of(x)
    assert dataclasses.astuple(form)[:2] == ((4, 3, 2), (1, 4, 12))
    empty = form.empty()
    assert (empty.shape, empty.stride(), empty.dtype, empty.device) == (x.shape, x.stride(), x.dtype, x.device)


@pytest.mark.parametrize("stage", [1, 3])
def test_the_image_parts_of_a_step_are_replayed(
    stage: int, small_settings: list[str], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of the whole model with replayed image parts, compared with one without the compiler."""
    monkeypatch.setattr(cuda_graphs, "Recorded", Computed)
    # Another test checks the code generated from the graph, which takes minutes.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    config = apply_overrides(preset("tiny"), [*small_settings, "compile=on", "precision=fp32"])
    ranks = Ranks(0, 1, None, torch.device("cpu"))
    torch.manual_seed(0)
    # In float64: in float32 a value that is rounded to the other side of zero changes the gradient of its ReLU.
    model = PRIORModel(config.model, vocab_size=50).train().double()
    plain = StageTrainer(copy.deepcopy(model), stage, dataclasses.replace(config, compile="off"), ranks)
    trainer = StageTrainer(model, stage, config, ranks)
    trainer.records = True  # as on a GPU
    for number in range(2):
        batch, context = make_batch(rng), StepContext(0.5, number)
        batch = dataclasses.replace(batch, images=batch.images.double())
        torch.manual_seed(number)
        before = torch.get_rng_state()
        trainer.evaluate(batch, context)  # the first time it records
        assert torch.equal(torch.get_rng_state(), before)  # without dropout nothing else draws
        found, wanted = (dict(own.step(batch, context, 1e-3)) for own in (trainer, plain))
        assert {name: x.item() for name, x in found.items()} == pytest.approx(
            {name: x.item() for name, x in wanted.items()}, rel=1e-8, abs=1e-8
        )
        for name, parameter in trainer.parameters.items():
            torch.testing.assert_close(parameter.grad, plain.parameters[name].grad, rtol=1e-7, atol=1e-9)
    parts = [f"image_encoder_{stage}", "image_decoder", "sentence_decoder"]
    assert trainer.parts is not None and trainer.parts.names == (parts if stage == 3 else parts[:1])
    # All parts have seen the last batch.
    torch.testing.assert_close(trainer.parts.whole[0].recorded.inputs[0], batch.images)
    assert all(x.abs().sum() > 0 for part in trainer.parts.whole for x in part.recorded.inputs)
    trainer.close()
    assert "forward" not in vars(model.image_encoder) and trainer.parts is None
