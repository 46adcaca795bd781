"""The step of each stage is one graph, for every batch, and computes what the plain step does."""

import dataclasses
import importlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.nn import functional as F

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.cli.main import main
from prior_fast.config import RunConfig, apply_overrides, preset
from prior_fast.data.batch_plan import LoaderConfig
from prior_fast.data.loader import TrainingLoader
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.kernels.common.launch import recording
from prior_fast.model.build import build_model
from prior_fast.model.prior import PRIORModel
from prior_fast.training.distributed import Ranks
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer, compiles

ONE = Ranks(0, 1, None, torch.device("cpu"))


@pytest.fixture(scope="module")
def config(small_settings: list[str]) -> RunConfig:
    return apply_overrides(preset("tiny"), [*small_settings, "batch_size=4"])


@pytest.fixture(scope="module")
def loader(config: RunConfig, small_store: Path) -> TrainingLoader:
    dataset = PreparedDataset.open(small_store, "train")
    return TrainingLoader(dataset, LoaderConfig(config.data, config.batch_size, seed=0))


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """The graphs that were given to a compiler that only traces."""
    counter = CompileCounterWithBackend("aot_eager")
    compile_with = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda loss, **how: compile_with(loss, backend=counter, fullgraph=True, **how)
    )
    return counter


def count(graphs: CompileCounterWithBackend) -> int:
    # Dynamo counts a graph without a node too.
    return sum(len(graph.graph.nodes) > 0 for graph in graphs.graphs)


def both(model: PRIORModel, stage: int, config: RunConfig) -> tuple[StageTrainer, StageTrainer]:
    """The plain stage, and that of a run that compiles."""
    plain, compiled = (
        StageTrainer(model, stage, dataclasses.replace(config, compile=how), ONE) for how in ("off", "on")
    )
    return plain, compiled


def batches(loader: TrainingLoader, stage: int) -> list[PackedBatch]:
    return list(loader.limited(16 if stage == 3 else 0).epoch(0, last=4))


# Tokens of each sentence of four reports: sizes are one, equal each other, or equal a constant of the model.
AWKWARD: Sequence[Sequence[Sequence[int]]] = (
    [[1]] * 4,  # one sentence of one token: the fewest of everything
    [[5]] * 4,  # as many sentences as reports
    [[5], [4], [6], [3, 3]],  # one more
    [[7], [8], [9, 3], [1]],
    [[5, 6]] * 4,
    [[1, 1, 1]] * 4,  # as many tokens as sentences
    [[3, 4, 5, 6]] * 4,  # 16 sentences, as many as queries and prototypes
    [[2] * 8] * 4,  # 32, the width
    [[2] * 16] * 4,  # 64, the queries of all reports
    [[9] * 16, [3], [4, 4], [7] * 12],
)


def made_of(
    lengths: Sequence[Sequence[int]], dataset: PreparedDataset, rng: np.random.Generator, filler: int = 0
) -> PackedBatch:
    """A batch of reports with so many tokens in each sentence, all random."""
    reports = [[rng.integers(5, dataset.vocab_size, tokens) for tokens in report] for report in lengths]
    text = pack_reports(reports, dataset.cls_id, dataset.sep_id)
    text = dataclasses.replace(
        text,
        token_ids=F.pad(text.token_ids, (0, filler)),
        position_ids=F.pad(text.position_ids, (0, filler)),
        filler=filler,
    )
    count = len(lengths)
    images = torch.tensor(rng.normal(size=(count, 1, 224, 224)), dtype=torch.float32)
    return text.with_images(images, study_ids=torch.arange(count), image_rows=torch.arange(count))


def awkward(loader: TrainingLoader, rng: np.random.Generator) -> list[PackedBatch]:
    """The batches of AWKWARD."""
    return [made_of(lengths, loader.dataset, rng) for lengths in AWKWARD]


# `make test` covers stage 1 with filler tokens, below; stage 3 contains everything that stage 2 adds.
@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_stage_is_one_graph_for_all_batches(
    stage: int, config: RunConfig, loader: TrainingLoader, graphs: CompileCounterWithBackend, rng: np.random.Generator
) -> None:
    model, _ = build_model(config.model, loader.dataset.vocab_size, seed=1)
    plain, compiled = both(model, stage, config)
    taken = batches(loader, stage)
    assert len({(len(batch.token_ids), batch.num_sentences, batch.max_sentences) for batch in taken}) > 2
    for number, batch in enumerate(taken):
        context = StepContext(tau=0.9 - 0.1 * number, seed=10**15 + number)
        wanted = plain.loss(batch, context)
        wanted["loss"].backward()
        gradients = {name: parameter.grad.clone() for name, parameter in plain.parameters.items()}
        model.zero_grad()
        terms = compiled.evaluate(batch, context)
        terms["loss"].backward()
        for name, term in wanted.items():
            torch.testing.assert_close(terms[name], term, rtol=1e-4, atol=1e-5)
        for name, parameter in plain.parameters.items():
            torch.testing.assert_close(
                parameter.grad, gradients[name], rtol=1e-2, atol=1e-3 + 1e-3 * wanted["loss"].abs().item()
            )
        model.zero_grad()
    # Their values are compared in float64, below: with noise for images, rounding may change a choice of the bank.
    for batch in awkward(loader, rng):
        compiled.evaluate(batch, StepContext(tau=0.5, seed=10**15))["loss"].backward()
    assert count(graphs) == 1


def test_filled_up_tokens_are_one_graph_too(
    config: RunConfig, small_store: Path, graphs: CompileCounterWithBackend, rng: np.random.Generator
) -> None:
    """Batches with several amounts of filler, and the plain step's losses."""
    dataset = PreparedDataset.open(small_store, "train")
    bucketed = LoaderConfig(dataclasses.replace(config.data, token_bucket=64), config.batch_size, seed=0)
    taken = batches(TrainingLoader(dataset, bucketed), 1)
    assert all(batch.filler > 1 for batch in taken) and len({batch.filler for batch in taken}) > 2
    model, _ = build_model(config.model, dataset.vocab_size, seed=1)
    plain, compiled = both(model, 1, dataclasses.replace(config, data=bucketed.data))
    # 64 tokens with [CLS] and [SEP], which need no filler, and 63, which need one.
    taken += [made_of([[14], [14], [14], [14 - lacking]], dataset, rng, filler=lacking) for lacking in (0, 1)]
    for number, batch in enumerate(taken):
        context = StepContext(tau=0.9, seed=number)
        wanted = plain.loss(batch, context)
        for name, term in compiled.evaluate(batch, context).items():
            torch.testing.assert_close(term, wanted[name], rtol=1e-4, atol=1e-5)
    assert count(graphs) == 1


@pytest.mark.parametrize("fewest_first", [True, False])
@pytest.mark.parametrize("stage", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_code_of_any_batch_serves_all_without_the_compiled_library_too(
    fewest_first: bool,
    stage: int,
    config: RunConfig,
    loader: TrainingLoader,
    graphs: CompileCounterWithBackend,
    rng: np.random.Generator,
) -> None:
    """The sizes of the first batch, which is traced, are no constants. In float64 every op is plain PyTorch, padded."""
    model, _ = build_model(config.model, loader.dataset.vocab_size, seed=1)
    plain, compiled = both(model.double(), stage, config)
    taken = [*awkward(loader, rng), *batches(loader, stage)]
    for number, batch in enumerate(taken if fewest_first else taken[::-1]):
        batch = dataclasses.replace(batch, images=batch.images.double())
        context = StepContext(tau=0.5, seed=number)
        wanted = plain.loss(batch, context)
        wanted["loss"].backward()
        gradients = {name: parameter.grad.clone() for name, parameter in plain.parameters.items()}
        model.zero_grad()
        terms = compiled.evaluate(batch, context)
        terms["loss"].backward()
        torch.testing.assert_close(terms, wanted, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(
            {name: x.grad for name, x in plain.parameters.items()}, gradients, rtol=1e-5, atol=1e-6
        )
        model.zero_grad()
    assert count(graphs) == 1


@pytest.mark.parametrize("stage", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_with_the_kernels_of_a_gpu_a_stage_is_one_graph_too(
    stage: int,
    config: RunConfig,
    loader: TrainingLoader,
    graphs: CompileCounterWithBackend,
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
) -> None:
    """The graph has other ops than on a CPU: their numeric arguments must not become constants of the graph."""
    monkeypatch.setenv("PRIOR_FAST_BACKEND", "triton")
    model, _ = build_model(config.model, loader.dataset.vocab_size, seed=1)
    trainer = StageTrainer(model, stage, dataclasses.replace(config, compile="on"), ONE)
    # No kernel runs, so values do not matter here and may be NaN.
    matching = importlib.import_module("prior_fast.ops.match_prototypes")
    monkeypatch.setattr(matching, "is_strict", lambda *arguments, **options: False)
    with recording() as launches:
        for number, batch in enumerate([*batches(loader, stage), *awkward(loader, rng)]):
            trainer.step(batch, StepContext(tau=0.9 - 0.05 * number, seed=10**15 + number), 1e-4)
    names = {call.kernel.__name__ for call in launches}
    assert {"_sigmoid_attention_fwd_kernel", "_prototype_lookup_fwd_kernel"} <= names
    assert count(graphs) == 1


@pytest.mark.slow
def test_few_and_many_sentences_share_the_code_of_training(
    config: RunConfig, loader: TrainingLoader, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """With the compiler that training uses, whose sums of more than 4096 numbers have other code on a CPU."""
    counter = CompileCounterWithBackend("inductor")
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda loss, **how: compile_with(loss, backend=counter, **how))
    model, _ = build_model(config.model, loader.dataset.vocab_size, seed=1)
    _, compiled = both(model, 2, config)
    width, most = config.model.embed_dim, 4096
    for sentences in (1, 4, 50):
        batch = made_of([[2] * sentences] * 4, loader.dataset, rng)
        compiled.evaluate(batch, StepContext(tau=0.5, seed=1))["loss"].backward()
    assert 4 * width < most < 4 * 50 * width
    assert count(counter) == 1


@pytest.mark.slow
def test_compiled_run_equals_plain_run(small_store: Path, small_settings: list[str], tmp_path: Path) -> None:
    """With the compiler that training uses; only stage 1, which takes half a minute to compile."""
    losses = []
    counters["aot_autograd"].clear()
    for choice in ("off", "on"):
        out = tmp_path / choice
        words = [*small_settings, "model.text.dropout=0", "stage_epochs=1,0,0", f"compile={choice}"]
        assert main(["train", "--preset", "tiny", "--data", str(small_store), "--out", str(out), *words]) == 0
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if line["kind"] == "train"])
    assert len(losses[0]) == 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    # A second start reuses what the first compiled, and a step is traced once.
    assert counters["aot_autograd"]["total"] == 1 and not counters["aot_autograd"]["autograd_cache_bypass"]


def test_auto_compiles_on_gpus_alone(config: RunConfig) -> None:
    assert not compiles(config, torch.device("cpu"))
    assert compiles(config, torch.device("cuda"))
    assert compiles(dataclasses.replace(config, compile="on"), torch.device("cpu"))
    assert not compiles(dataclasses.replace(config, compile="off"), torch.device("cuda"))
