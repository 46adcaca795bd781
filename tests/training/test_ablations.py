"""The settings that turn off parts of the model: terms, trained parts, values and counted operations of each stage."""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.config import ModelConfig, RunConfig, apply_overrides, from_dict, preset, to_dict, validate_config
from prior_fast.data.batch_plan import LoaderConfig
from prior_fast.data.loader import TrainingLoader
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.measure.convolutions.found import collect
from prior_fast.measure.ladder.check import compare, evaluate
from prior_fast.measure.ladder.rungs import LADDER, RungStep
from prior_fast.model.local_alignment import LocalCrossAttention
from prior_fast.model.prior import PRIORModel
from prior_fast.training import cuda_graphs
from prior_fast.training.distributed import Ranks
from prior_fast.training.operations import Sizes, forward_operations, sizes_of, step_operations
from prior_fast.training.stages import STAGES, StepContext, Terms, weighted_sum
from prior_fast.training.step import StageTrainer, train_only
from tests.training.test_cuda_graphs import Computed

SETTINGS = ("use_bank", "use_local_alignment", "use_reconstruction")
BANK, LOCAL, RECONSTRUCTION = SETTINGS
# For each term the first stage that has it, and the parts that it needs, in the order of the terms.
NEEDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "global_alignment": (1, ()),
    "local_image": (1, (LOCAL,)),
    "local_text": (1, (LOCAL,)),
    "attention_alignment": (1, (LOCAL,)),
    "prototype": (2, (BANK,)),
    "image_reconstruction": (3, (RECONSTRUCTION,)),
    "prototype_generation": (3, (RECONSTRUCTION,)),
    "prototype_kl": (3, (BANK, RECONSTRUCTION)),
    "report_generation": (3, (RECONSTRUCTION,)),
}
COMBINATIONS = [
    off for count in range(len(SETTINGS) + 1) for off in itertools.combinations(SETTINGS, count)
]  # the parts that are turned off
EACH = pytest.mark.parametrize("off", COMBINATIONS, ids=lambda off: "+".join(off) or "full")
EACH_STAGE = pytest.mark.parametrize("stage", [1, 2, 3])
ONE = Ranks(0, 1, None, torch.device("cpu"))
CONTEXT = StepContext(0.5, seed=7)


@pytest.fixture
def config(small_settings: list[str]) -> RunConfig:
    # This pool of tokens has parameters.
    return apply_overrides(preset("tiny"), [*small_settings, "batch_size=4", "model.sentence_pool=attention"])


def without(config: ModelConfig, off: tuple[str, ...]) -> ModelConfig:
    return dataclasses.replace(config, **dict.fromkeys(off, False))


def make_model(config: ModelConfig, dtype: torch.dtype = torch.float32) -> PRIORModel:
    torch.manual_seed(0)
    return PRIORModel(config, vocab_size=50).to(dtype).train()


@pytest.fixture
def batch(rng: np.random.Generator) -> PackedBatch:
    return make_batch(rng)


def make_batch(rng: np.random.Generator, dtype: torch.dtype = torch.float32) -> PackedBatch:
    reports = [[rng.integers(5, 50, rng.integers(1, 9)) for _ in range(n)] for n in (3, 1, 16, 5)]
    numbers = torch.arange(len(reports))
    images = torch.tensor(rng.normal(size=(len(reports), 1, 224, 224)), dtype=dtype)
    return pack_reports(reports, 2, 3).with_images(images, study_ids=numbers, image_rows=numbers)


def terms_of(config: ModelConfig, batch: PackedBatch, stage: int) -> Terms:
    with torch.no_grad():
        return STAGES[stage](make_model(config), batch, CONTEXT)


def parts_of(parameters: Iterator[str]) -> set[str]:
    return {name.split(".")[0] for name in parameters}


@EACH
@EACH_STAGE
def test_a_stage_has_the_terms_and_trains_the_parts_that_are_left(
    off: tuple[str, ...], stage: int, config: RunConfig, batch: PackedBatch
) -> None:
    model = make_model(without(config.model, off))
    before = copy.deepcopy(model.state_dict())
    used: set[str] = set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *call, name=name: used.add(name.split(".")[0]))
    terms = STAGES[stage](model, batch, CONTEXT)
    assert list(terms) == [
        name for name, (first, parts) in NEEDS.items() if stage >= first and not set(parts) & set(off)
    ]
    weighted_sum(terms, config.loss, stage).backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    assert reached == set(train_only(model, stage))
    # The parts that are not trained are not run: their statistics do not change either.
    trained = parts_of(iter(reached))
    assert used <= {"", *trained}
    for name, value in model.state_dict().items():
        assert name.split(".")[0] in trained or torch.equal(value, before[name]), name


@EACH
@EACH_STAGE
def test_each_trained_part_gets_a_gradient_that_is_not_zero(
    off: tuple[str, ...], stage: int, config: RunConfig, batch: PackedBatch
) -> None:
    model = make_model(without(config.model, off))
    parameters = train_only(model, stage)
    weighted_sum(STAGES[stage](model, batch, CONTEXT), config.loss, stage).backward()
    moved = {name for name, parameter in parameters.items() if parameter.grad.abs().max() > 0}
    assert parts_of(iter(moved)) == parts_of(iter(parameters))


def test_checkpoints_of_all_combinations_have_the_same_tensors(config: RunConfig) -> None:
    shapes = [
        {name: x.shape for name, x in make_model(without(config.model, off)).state_dict().items()}
        for off in COMBINATIONS
    ]
    assert all(other == shapes[0] for other in shapes)


@EACH_STAGE
def test_without_reconstruction_the_other_terms_are_those_of_the_full_model(
    stage: int, config: RunConfig, batch: PackedBatch
) -> None:
    full = terms_of(config.model, batch, stage)
    own = terms_of(without(config.model, (RECONSTRUCTION,)), batch, stage)
    assert list(own) == list(full)[: 4 if stage == 1 else 5]
    assert all(torch.equal(own[name], full[name]) for name in own)


@EACH_STAGE
def test_without_local_alignment_the_other_terms_are_those_of_the_full_model(
    stage: int, config: RunConfig, batch: PackedBatch
) -> None:
    full = terms_of(config.model, batch, stage)
    own = terms_of(without(config.model, (LOCAL,)), batch, stage)
    assert own.keys() == full.keys() - {"local_image", "local_text", "attention_alignment"}
    # Fewer projections are computed by one product, which rounds differently.
    assert all(torch.equal(own[name], full[name]) for name in own.keys() - {"image_reconstruction"})
    torch.testing.assert_close(own.get("image_reconstruction"), full.get("image_reconstruction"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stage", [2, 3])
def test_without_a_bank_global_and_local_terms_are_those_of_stage_1(
    stage: int, config: RunConfig, batch: PackedBatch
) -> None:
    first = terms_of(config.model, batch, 1)
    own = terms_of(without(config.model, (BANK,)), batch, stage)
    assert all(torch.equal(own[name], first[name]) for name in first)
    assert stage == 3 or own.keys() == first.keys()
    # The test would not notice a bank that changes nothing.
    full = terms_of(config.model, batch, stage)
    assert all(not torch.equal(full[name], first[name]) for name in first)


def test_without_a_bank_sentences_are_predicted_and_pooled_as_they_are(
    config: RunConfig, rng: np.random.Generator
) -> None:
    model = make_model(without(config.model, (BANK,)), torch.float64)
    batch = make_batch(rng, torch.float64)
    results: dict[str, list[Tensor]] = {"local_text_projection": [], "sentence_decoder": []}
    pooled: list[Tensor] = []
    for name, found in results.items():
        model.get_submodule(name).register_forward_hook(
            lambda module, arguments, result, found=found: found.append(result)
        )
    model.global_text_attention.register_forward_hook(lambda module, arguments, result: pooled.append(arguments[0]))
    terms = STAGES[3](model, batch, CONTEXT)
    (sentences,), (predicted,) = results.values()
    distances, taken = [], []
    for report, own in enumerate(sentences.split(batch.cu_sentences.diff().tolist())):
        padded = torch.cat([own, own.new_zeros(16 - len(own), own.shape[1])])
        rows, columns = linear_sum_assignment(torch.cdist(predicted[report], padded, p=1).detach().numpy())
        distances.append((predicted[report][rows] - padded[columns]).abs().mean())
        taken.append(predicted[report][np.argsort(columns)[: len(own)]])
    torch.testing.assert_close(terms["prototype_generation"], torch.stack(distances).mean(), rtol=1e-9, atol=0)
    assert torch.equal(pooled[0], sentences)
    assert torch.equal(pooled[1], torch.cat(taken))


@EACH
@EACH_STAGE
def test_plain_code_has_the_same_losses_and_gradients(
    off: tuple[str, ...],
    stage: int,
    config: RunConfig,
    rng: np.random.Generator,
    gradients_by_name: Callable[[nn.Module], dict[str, Tensor]],
) -> None:
    config = dataclasses.replace(config, model=without(config.model, off))
    model, batch = make_model(config.model, torch.float64), make_batch(rng, torch.float64)
    values, gradients = [], []
    for rung in (LADDER[0], LADDER[-1]):
        step = RungStep(rung, model, stage, dataclasses.replace(config, compile="off"), ONE.device)
        values.append(evaluate(step, [batch], CONTEXT))
        step.same_noise = True
        step.terms(batch, CONTEXT)["loss"].backward()
        gradients.append(gradients_by_name(step.model))
    compare(step, values[1], values[0], 1e-8, 1e-6)
    for name, wanted in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], wanted, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_the_context_for_images_alone_is_the_same_and_trains_only_what_it_reads(
    activation: str, rng: np.random.Generator, gradients_by_name: Callable[[nn.Module], dict[str, Tensor]]
) -> None:
    attention = LocalCrossAttention(8, activation).double()
    image, text = (torch.tensor(rng.normal(size=shape)) for shape in ((2, 49, 8), (5, 8)))
    offsets = torch.tensor([0, 3, 5], dtype=torch.int32)
    weights = torch.tensor(rng.normal(size=(2, 49, 8)))
    found = []
    for call in (attention.forward, attention.for_image):
        attention.zero_grad()
        result = call(image, text, offsets, 3)
        result = result if isinstance(result, Tensor) else result.for_image
        (result * weights).sum().backward()
        found.append((result.detach(), gradients_by_name(attention)))
    torch.testing.assert_close(found[1], found[0])
    for name, gradient in found[1][1].items():
        unread = name.split(".")[0] in ("key1", "value1", "query2")
        # A softmax does not change if all its scores do.
        assert gradient.abs().max() == 0 if unread else gradient.abs().max() > 0 or name == "key2.bias", name


@EACH
@EACH_STAGE
def test_counted_operations_are_those_that_torch_counts(
    off: tuple[str, ...], stage: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch does not see the products of other backends.
    monkeypatch.setenv("PRIOR_FAST_BACKEND", "reference")
    # Two layers of text: the pools, whose rewritten form needs fewer operations than are counted, are a small share.
    tiny = apply_overrides(preset("tiny"), ["model.text.layers=2"]).model
    config = without(tiny, off)
    model = make_model(config)
    reports = [[rng.integers(5, 50, n) for n in (9, 5, 12, 8)] for _ in range(3)]
    numbers = torch.arange(3)
    images = torch.tensor(rng.normal(size=(3, 1, 224, 224)), dtype=torch.float32)
    batch = pack_reports(reports, 2, 3).with_images(images, study_ids=numbers, image_rows=numbers)
    train_only(model, stage)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        terms = STAGES[stage](model, batch, CONTEXT)
        forward = counter.get_total_flops()
        weighted_sum(terms, preset("tiny").loss, stage).backward()
    assert sum(forward_operations(config, stage, sizes_of([batch])).values()) == pytest.approx(forward, rel=0.005)
    assert step_operations(config, stage, sizes_of([batch])) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_the_context_for_images_alone_is_counted(rng: np.random.Generator) -> None:
    """Its share of a step is too small for the test above."""
    config = without(preset("tiny").model, (LOCAL,))
    patches, sentences = (
        torch.tensor(rng.normal(size=shape)) for shape in ((3, 49, config.embed_dim), (12, config.embed_dim))
    )
    attention = LocalCrossAttention(config.embed_dim).double()
    with FlopCounterMode(display=False) as counter:
        attention.for_image(patches, sentences, torch.tensor([0, 4, 8, 12], dtype=torch.int32), 4)
    sizes = Sizes(pairs=3, tokens=90, sentences=12, squared_pairs=9, squared_tokens=2700, squared_sentences=48)
    assert forward_operations(config, 3, sizes)["local_alignment"] == counter.get_total_flops()
    assert "local_alignment" not in forward_operations(config, 2, sizes)


def test_convolutions_of_a_decoder_that_is_not_run_are_not_collected(config: RunConfig) -> None:
    ablated = dataclasses.replace(config, model=without(config.model, (RECONSTRUCTION,)))
    names = [
        {name.split(".")[0] for modules in collect(own, 3, compiled=False).values() for name in modules}
        for own in (config, ablated)
    ]
    assert names == [{"image_encoder", "image_decoder"}, {"image_encoder"}]


@EACH
def test_all_combinations_are_valid_but_softmax_without_an_attention(off: tuple[str, ...], config: RunConfig) -> None:
    validate_config(dataclasses.replace(config, model=without(config.model, off)))
    softmax = dataclasses.replace(config, model=dataclasses.replace(without(config.model, off), attention="softmax"))
    if {LOCAL, RECONSTRUCTION} <= set(off):
        with pytest.raises(UsageError, match=r"model\.attention=softmax: must be sigmoid with .*no attention"):
            validate_config(softmax)
    else:
        validate_config(softmax)


def test_a_config_saved_before_these_settings_has_all_parts(config: RunConfig) -> None:
    saved = to_dict(without(config.model, SETTINGS))
    for name in SETTINGS:
        assert saved.pop(name) is False
    assert from_dict(ModelConfig, saved) == config.model


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_stage_3_is_one_graph_for_all_batches(
    name: str, config: RunConfig, small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=graphs, fullgraph=True))
    dataset = PreparedDataset.open(small_store, "train")
    loader = TrainingLoader(dataset, LoaderConfig(config.data, config.batch_size, seed=0))
    torch.manual_seed(1)
    model = PRIORModel(without(config.model, (name,)), dataset.vocab_size)
    config = dataclasses.replace(config, model=model.config)
    plain, compiled = (StageTrainer(model, 3, dataclasses.replace(config, compile=how), ONE) for how in ("off", "on"))
    for number, own in enumerate(loader.limited(16).epoch(0, last=3)):
        context = StepContext(0.9 - 0.1 * number, seed=number)
        wanted = plain.loss(own, context)
        terms = compiled.evaluate(own, context)
        terms["loss"].backward()
        for key, term in wanted.items():
            torch.testing.assert_close(terms[key], term, rtol=1e-4, atol=1e-5)
        assert all(parameter.grad is not None for parameter in compiled.parameters.values())
        model.zero_grad()
    assert sum(len(graph.graph.nodes) > 0 for graph in graphs.graphs) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stage"), [(LOCAL, 1), (LOCAL, 3), (RECONSTRUCTION, 3)])
def test_a_recorded_step_runs_the_parts_that_are_left(
    name: str, stage: int, config: RunConfig, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In stage 1 without local alignment, one of the image encoder's recorded outputs is not used."""
    monkeypatch.setattr(cuda_graphs, "Recorded", Computed)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    config = dataclasses.replace(config, model=without(config.model, (name,)))
    # In float64: after an update in float32, roundings of the two forms have grown to percents of a gradient.
    model = make_model(config.model, torch.float64)
    plain, trainer = (
        StageTrainer(own, stage, dataclasses.replace(config, compile=how), ONE)
        for own, how in ((copy.deepcopy(model), "off"), (model, "on"))
    )
    trainer.records = True
    for number in range(2):
        batch = make_batch(rng)
        batch = dataclasses.replace(batch, images=batch.images.double())
        found, wanted = (own.step(batch, StepContext(0.5, number), 1e-3) for own in (trainer, plain))
        assert {key: x.item() for key, x in found.items()} == pytest.approx(
            {key: x.item() for key, x in wanted.items()}, rel=2e-4, abs=2e-4
        )
        for key, parameter in trainer.parameters.items():
            torch.testing.assert_close(parameter.grad, plain.parameters[key].grad, rtol=2e-2, atol=2e-4)
    decodes = stage == 3 and name != RECONSTRUCTION
    parts = [f"image_encoder_{stage}", "image_decoder", "sentence_decoder"]
    assert trainer.parts is not None and trainer.parts.names == (parts if decodes else parts[:1])
    trainer.close()
