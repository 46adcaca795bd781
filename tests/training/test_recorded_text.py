"""The recorded text encoder in a compiled step, with recordings that compute (on a CPU) or with CUDA graphs."""

import copy
import dataclasses
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from prior_fast.batch import FILLERS, PackedBatch
from prior_fast.config import TextEncoderConfig, apply_overrides, preset
from prior_fast.model.prior import PRIORModel
from prior_fast.model.text_encoder import TextEncoder
from prior_fast.training import cuda_graphs, recorded_text
from prior_fast.training.distributed import Ranks
from prior_fast.training.narrow_weights import WithWeights, narrowed, product_weights
from prior_fast.training.recorded_text import BUCKET, ReplayedText, filled
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer
from tests.training.test_cuda_graphs import Computed
from tests.training.test_no_syncs import make_batch

CPU = torch.device("cpu")


def encoder() -> TextEncoder:
    torch.manual_seed(0)
    config = TextEncoderConfig(hidden_size=16, layers=2, heads=2, intermediate_size=32, positions=64, dropout=0.0)
    return TextEncoder(config, vocab_size=30).train().double()


def reports(lengths: list[int], extra: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random reports, and segments of equal lengths for `extra` more tokens."""
    offsets = np.cumsum([0, *lengths, *np.diff(np.arange(FILLERS + 1) * extra // FILLERS)])
    positions = torch.cat([torch.arange(int(n)) % 60 for n in np.diff(offsets)])
    return torch.randint(0, 30, (int(offsets[-1]),)), positions, torch.from_numpy(offsets).int()


class Whole(nn.Module):
    def __init__(self, text: TextEncoder) -> None:
        super().__init__()
        self.text = text

    def forward(self, tokens: int, *inputs: Tensor) -> Tensor:
        return self.text(*inputs, 60)[:tokens].sin().sum()


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> tuple[TextEncoder, TextEncoder, ReplayedText]:
    """An encoder, its twin that is replayed for batches of three reports, and the replay."""
    monkeypatch.setattr(recorded_text, "Recorded", Computed)
    torch._dynamo.reset()
    plain = encoder()
    twin = copy.deepcopy(plain)
    run = WithWeights(twin, tuple(product_weights(twin))).run

    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        return (run(narrowed(tuple(product_weights(twin).values()), torch.float64), *inputs, 64),)

    return plain, twin, ReplayedText("text", twin, function, 3, 64, nullcontext(), CPU)


def test_a_compiled_step_replays_for_several_numbers_of_tokens(
    replay: tuple[TextEncoder, TextEncoder, ReplayedText],
) -> None:
    plain, twin, replayed = replay
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(Whole(twin), dynamic=True, backend=graphs)
    seen = []
    for lengths, tokens in (([20, 1, 39], 512), ([30, 2, 7], 1024), ([20, 20, 20], 512), ([5, 6, 7], 1536)):
        inputs = reports(lengths, tokens - sum(lengths))
        torch._dynamo.mark_static(inputs[2])
        replayed.recorded.prepare(tokens)
        found, wanted = compiled(sum(lengths), *inputs), Whole(plain)(sum(lengths), *inputs)
        torch.testing.assert_close(found, wanted)
        found.backward()
        wanted.backward()
        for own, other in zip(twin.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad)
            own.grad = other.grad = None
        assert replayed.recorded.current is replayed.recorded.by_tokens[tokens]
        seen.append(tokens)
    assert list(replayed.recorded.by_tokens) == [1024, 512, 1536]  # the last used comes last
    assert graphs.frame_count <= 2  # the second for a dynamic number of tokens
    replayed.close()
    assert "forward" not in vars(twin) and not replayed.recorded.by_tokens


def test_only_filled_batches_of_a_compiled_training_step_are_replayed(
    replay: tuple[TextEncoder, TextEncoder, ReplayedText], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, twin, replayed = replay
    replayed.recorded.prepare(512)
    monkeypatch.setattr(replayed.recorded, "forward", lambda inputs: pytest.fail("replayed"))
    full, short = reports([20, 20, 20], 452), reports([20, 20, 20], 451)
    compiled = torch.compile(Whole(twin), dynamic=True, backend="aot_eager")
    other = copy.deepcopy(twin)
    with torch.no_grad():
        torch.testing.assert_close(compiled(60, *full), Whole(plain)(60, *full))
    for run, inputs in ((Whole(twin), full), (compiled, short), (compiled, reports([20, 40], 452))):
        torch.testing.assert_close(run(60, *inputs), Whole(plain)(60, *inputs))
    with pytest.raises(pytest.fail.Exception, match="replayed"):
        compiled(60, *full)
    recompiled = torch.compile(Whole(other), dynamic=True, backend="aot_eager")
    torch.testing.assert_close(recompiled(60, *full), Whole(plain)(60, *full))  # a copy


def test_the_oldest_recording_goes(
    replay: tuple[TextEncoder, TextEncoder, ReplayedText], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_text, "MOST", 2)
    recorded = replay[2].recorded
    for tokens in (512, 1024, 512, 1536):
        recorded.prepare(tokens)
    assert list(recorded.by_tokens) == [512, 1536]
    kept = recorded.by_tokens[512]
    recorded.prepare(512)
    assert recorded.by_tokens[512] is kept


@pytest.mark.parametrize("before", [0, 3, 100])
def test_filler_fills_up_and_is_never_one_token(before: int, rng: np.random.Generator) -> None:
    batch = dataclasses.replace(make_batch(rng), filler=0)
    model = PRIORModel(apply_overrides(preset("tiny"), []).model, vocab_size=50).eval()
    for extra in (0, BUCKET - len(batch.token_ids) % BUCKET, BUCKET - len(batch.token_ids) % BUCKET - 1):
        pad = partial(nn.functional.pad, pad=(0, before + extra))
        own = dataclasses.replace(
            batch, token_ids=pad(batch.token_ids), position_ids=pad(batch.position_ids), filler=before + extra
        )
        full = filled(own)
        assert isinstance(full, PackedBatch) and len(full.token_ids) % BUCKET == 0
        assert FILLERS <= full.filler < BUCKET + FILLERS + before + extra
        assert len(full.position_ids) == len(full.token_ids) == len(batch.token_ids) + full.filler
        with torch.no_grad():
            torch.testing.assert_close(model.encode_sentences(full), model.encode_sentences(batch))


def test_narrow_weights_have_the_gradients_that_autocast_gives() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(5 * 16), nn.Linear(80, 7))
    module.to(memory_format=torch.channels_last)
    module[4].bias.requires_grad_(False)
    twin = copy.deepcopy(module)
    weights = product_weights(twin)
    assert list(weights) == ["0.weight", "4.weight"]
    x = torch.randn(4, 3, 6, 6)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        wanted = module(x)
        found = WithWeights(twin, tuple(weights)).run(narrowed(tuple(weights.values()), torch.bfloat16), x)
    assert torch.equal(found, wanted)
    found.float().sin().sum().backward()
    wanted.float().sin().sum().backward()
    for own, other in zip(twin.parameters(), module.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None)
        if own.grad is not None and other.grad is not None:
            assert own.grad.dtype == torch.float32 and torch.equal(own.grad, other.grad)


def test_frozen_weights_and_subclasses_stay_as_they_are() -> None:
    class Scaled(nn.Linear):
        """Computes with its weight before the product."""

    module = nn.Sequential(nn.Linear(2, 2), Scaled(2, 2), nn.Linear(2, 2), nn.Embedding(3, 2))
    module[2].weight.requires_grad_(False)
    assert list(product_weights(module)) == ["0.weight"]
    assert list(product_weights(nn.Linear(2, 2))) == ["weight"]


def test_a_step_in_bfloat16_replays_the_text_encoder(
    small_settings: list[str], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of stage 3 with all parts recorded, compared with the same compiled step without recordings."""
    monkeypatch.setattr(cuda_graphs, "Recorded", Computed)
    monkeypatch.setattr(recorded_text, "Recorded", Computed)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    config = apply_overrides(preset("tiny"), [*small_settings, "compile=on", "precision=bf16"])
    ranks = Ranks(0, 1, None, CPU)
    torch.manual_seed(0)
    model = PRIORModel(config.model, vocab_size=50).train()
    plain = StageTrainer(copy.deepcopy(model), 3, config, ranks)
    trainer = StageTrainer(model, 3, config, ranks)
    trainer.records = True  # as on a GPU
    for number in range(2):
        batch, context = make_batch(rng), StepContext(0.5, number)
        found, wanted = (own.step(batch, context, 0.0) for own in (trainer, plain))
        assert {name: x.item() for name, x in found.items()} == pytest.approx(
            {name: x.item() for name, x in wanted.items()}, rel=2e-2, abs=2e-2
        )
        for name, parameter in trainer.parameters.items():
            other = plain.parameters[name].grad
            assert parameter.grad is not None and other is not None
            assert parameter.grad.dtype == other.dtype
            assert (parameter.grad - other).norm() <= 0.1 * other.norm() + 1e-3, name
    assert trainer.parts is not None and trainer.parts.names[-1] == "text_encoder"
    other = dataclasses.replace(batch, max_tokens=config.data.max_tokens + 1)
    assert trainer.parts.prepare(other) is other and trainer.parts.prepare(batch) is not batch
    assert trainer.parts.text is not None and list(trainer.parts.text.recorded.by_tokens) == [BUCKET]
    assert all(x.abs().sum() > 0 for x in trainer.parts.text.recorded.by_tokens[BUCKET].inputs)
    trainer.close()
    assert "forward" not in vars(model.text_encoder)
