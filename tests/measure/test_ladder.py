"""The ladder of `prior-fast bench train`: every rung takes the same step, and one that does not is caught."""

import dataclasses
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor.utils import run_and_get_code

from prior_fast.cli.main import main
from prior_fast.config import RunConfig, apply_overrides, preset
from prior_fast.errors import RunError, UsageError
from prior_fast.measure.ladder.batches import made_up_batches
from prior_fast.measure.ladder.bench_ladder import LadderOptions, make_config, run_ladder
from prior_fast.measure.ladder.check import compare, evaluate, require_movement, snapshot
from prior_fast.measure.ladder.count import count
from prior_fast.measure.ladder.generated import calls_of, compiled_head_calls
from prior_fast.measure.ladder.measure import Measured, MeasurePlan, measure, slower_than_before
from prior_fast.measure.ladder.rungs import LADDER, RungStep, backends
from prior_fast.measure.plain.batch import pad_batch
from prior_fast.measure.plain.encoders import masked_attention, undo_rewrites
from prior_fast.model import bert
from prior_fast.model.prior import PRIORModel
from prior_fast.ops import segment_mean
from prior_fast.training.stages import StepContext

VOCABULARY = 50
CPU = torch.device("cpu")
CONTEXT = StepContext(0.5, seed=7)
# Compiling a stage takes minutes on a CPU; the tests of the training step check that it changes nothing.
EAGER = tuple(rung for rung in LADDER if not rung.compiled)
PLAIN, LAST = EAGER[0], EAGER[-1]


@pytest.fixture
def config(small_settings: list[str]) -> RunConfig:
    return apply_overrides(preset("tiny"), [*small_settings, "batch_size=4"])


def make_model(config: RunConfig, dtype: torch.dtype = torch.float32) -> PRIORModel:
    torch.manual_seed(0)
    return PRIORModel(config.model, VOCABULARY).to(dtype)


def make_batches(config: RunConfig, number: int = 2, dtype: torch.dtype = torch.float32):
    batches = made_up_batches(config, number, 40, VOCABULARY, seed=1)
    return [dataclasses.replace(batch, images=batch.images.to(dtype)) for batch in batches]


# The paper's choices, the released code's, and choices of neither.
VARIANTS = {
    "paper": [],
    "released": ["projection=linear", "sentence_pool=mean", "layout=released", "decoder_norm=before_relu"],
    "ablation": ["projection=linear", "attention=softmax"],
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_all_rungs_have_the_same_losses_and_gradients(
    config: RunConfig, stage: int, variant: str, gradients_by_name: Callable[[nn.Module], dict[str, torch.Tensor]]
) -> None:
    config = apply_overrides(config, [f"model.{setting}" for setting in VARIANTS[variant]])
    model, batches = make_model(config, torch.float64), make_batches(config, dtype=torch.float64)
    gradients, expected = {}, None
    for rung in EAGER:
        step = RungStep(rung, model, stage, config, CPU)
        step.same_noise = True
        values = evaluate(step, batches, CONTEXT)
        expected = expected or values
        compare(step, values, expected, 1e-5, 1e-5)
        step.same_noise = True
        sum(v for k, v in step.terms(batches[0], CONTEXT).items() if k != "loss").backward()
        gradients[rung.key] = gradients_by_name(step.model)
    for key, found in gradients.items():
        for name, wanted in gradients["a"].items():
            torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-7, msg=f"({key}) {name}")


def test_fifty_steps_of_plain_code_and_of_the_last_rung_end_alike(config: RunConfig) -> None:
    # A learning rate that changes the loss but does not amplify rounding too much within the fifty steps. In float32 a
    # step may match two prototypes of nearly equal cost the other way round.
    config = apply_overrides(config, ["learning_rate=3e-5,3e-5,3e-5"])
    model, batches = make_model(config, torch.float64), make_batches(config, 4, dtype=torch.float64)
    losses = {}
    for rung in (PLAIN, LAST):
        step = RungStep(rung, model, 3, config, CPU)
        step.same_noise = True
        taken = [step.step(batches[i % 4], StepContext(0.9, seed=i))["loss"].item() for i in range(50)]
        losses[rung.key] = taken
    first, last = (np.array(losses[rung.key]) for rung in (PLAIN, LAST))
    assert abs(first[:4].mean() - first[-4:].mean()) > 0.1
    np.testing.assert_allclose(last, first, rtol=1e-5)


def test_padding_a_batch_keeps_each_token_and_its_sentence(config: RunConfig) -> None:
    (batch,) = make_batches(config, 1)
    padded = pad_batch(batch, 64)
    assert padded.token_ids.shape == (4, 64)
    assert padded.attention_mask.sum(1).tolist() == batch.cu_tokens.diff().tolist()
    lengths = batch.cu_sentence_tokens.diff().tolist()
    for report, (begin, end) in enumerate(zip(batch.cu_sentences, batch.cu_sentences[1:])):
        ids, index = padded.token_ids[report], padded.sentence_index[report]
        tokens = batch.token_ids[batch.cu_tokens[report] : batch.cu_tokens[report + 1]]
        assert torch.equal(ids[: len(tokens)], tokens) and not ids[len(tokens) :].any()
        assert [int((index == i).sum()) for i in range(int(end - begin))] == lengths[begin:end]
        assert index[0] == index[len(tokens) - 1] == -1
        assert (index[len(tokens) :] == -1).all()
    with pytest.raises(ValueError, match="tokens, wanted at most 8"):
        pad_batch(batch, 8)


def test_made_up_reports_have_the_length_that_was_asked_for(config: RunConfig) -> None:
    config = apply_overrides(config, ["batch_size=32", "data.max_tokens=256"])
    for batch in made_up_batches(config, 2, 90, 1000, seed=3):
        assert batch.cu_tokens[-1] == 32 * 90
        assert batch.max_tokens <= config.data.max_tokens
        sentences = batch.cu_sentences.diff()
        assert sentences.min() >= 4 and sentences.max() <= 16
        assert 6 < sentences.float().mean() < 10
    with pytest.raises(UsageError, match="--mean-tokens 5"):
        made_up_batches(config, 1, 5, 1000, seed=3)


def test_op_calls_and_reads_of_the_rungs(config: RunConfig) -> None:
    model, batches = make_model(config), make_batches(config)
    counts = {}
    for rung in EAGER:
        step = RungStep(rung, model, 3, config, CPU)
        counts[rung.key] = count(step, batches[0], CONTEXT)
        assert all("forward" not in vars(module) for module in step.model.modules())
    plain, last = counts[PLAIN.key], counts[LAST.key]
    assert plain.head_ops < plain.ops and last.head_ops < last.ops
    assert last.head_ops < plain.head_ops
    # Pooling one sentence at a time uses boolean indices, and each report's costs go to the host.
    assert plain.reads > batches[0].num_sentences + 4
    assert last.reads == 0


def test_calls_in_generated_code() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return segment_mean(torch.relu(x @ y + 1), torch.tensor([0, 2, 5])).softmax(dim=1)

    torch._dynamo.reset()
    x, y = torch.rand(5, 7, requires_grad=True), torch.rand(7, 3, requires_grad=True)
    _, sources = run_and_get_code(lambda: torch.compile(function)(x, y).sum().backward())
    # Forward: the product, and at least one kernel for the rest. Backward: two products, and kernels before them.
    assert len(sources) == 2
    assert [source.count("extern_kernels.mm(") for source in sources] == [1, 2]
    assert all(2 <= calls_of(source) <= 12 for source in sources), [calls_of(source) for source in sources]
    assert calls_of("def call(self, args):\n    return ()\n") == 0


def test_a_compiled_head_makes_few_calls(config: RunConfig) -> None:
    model, (batch, *_) = make_model(config), make_batches(config)
    eager = count(RungStep(LAST, model, 1, config, CPU), batch, CONTEXT).head_ops
    calls = compiled_head_calls(RungStep(LAST, model, 1, config, CPU), batch, CONTEXT)
    # Eight projections, and three products of attention forward and backward, remain.
    assert 30 < calls < eager / 4


def test_op_calls_of_plain_code_grow_with_the_pairs_and_those_of_the_last_rung_do_not(config: RunConfig) -> None:
    found = {}
    for pairs in (4, 8):
        own = dataclasses.replace(config, batch_size=pairs)
        for rung in (PLAIN, LAST):
            step = RungStep(rung, make_model(own), 3, own, CPU)
            found[rung.key, pairs] = count(step, make_batches(own)[0], CONTEXT).head_ops
    assert found[PLAIN.key, 8] > 1.5 * found[PLAIN.key, 4]
    assert found[LAST.key, 8] == found[LAST.key, 4]


class Constant(RungStep):
    """Returns without computing."""

    def terms(self, batch, context):
        zero = sum(p.sum() * 0 for p in self.parameters.values())
        names = ("loss", "global_alignment", "local_image", "local_text", "attention_alignment")
        return dict.fromkeys(names, zero + 1.0) if self.rung.kernels else super().terms(batch, context)


class Detached(RungStep):
    """Has the right losses, and no gradient."""

    def terms(self, batch, context):
        terms = super().terms(batch, context)
        return {name: term.detach() for name, term in terms.items()} if self.rung.kernels else terms


class HalfGradient(RungStep):
    """Has the right losses, and a wrong gradient."""

    def terms(self, batch, context):
        terms = super().terms(batch, context)
        if self.rung.kernels:
            terms["loss"] = terms["loss"] / 2 + (terms["loss"] / 2).detach()
        return terms


class Idle(RungStep):
    """Computes, and leaves the parameters where they are."""

    def step(self, batch, context):
        return self.terms(batch, context) if self.rung.kernels else super().step(batch, context)


class Infinite(RungStep):
    """Has a loss that is NaN or infinite."""

    def terms(self, batch, context):
        terms = super().terms(batch, context)
        return {name: term * math.nan for name, term in terms.items()} if self.rung.kernels else terms


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        (Constant, "does not compute the same step"),
        (Detached, "without a gradient"),
        (HalfGradient, "gradient of batch 0"),
        (Idle, "does not train"),
        (Infinite, "is nan"),
    ],
)
def test_a_rung_that_returns_without_computing_is_caught(small_settings: list[str], fake, message: str) -> None:
    options = LadderOptions(
        "tiny", stage=1, batch=4, steps=1, warm_up=1, mean_tokens=40, rungs="af", settings=small_settings
    )
    with pytest.raises(RunError, match=message):
        run_ladder(options, make=fake)


class Failing(RungStep):
    """Fails with an unexpected error, as a compiler can."""

    def terms(self, batch, context):
        if self.rung.key == "d":
            raise ZeroDivisionError("in the compiler")
        return super().terms(batch, context)


@pytest.mark.parametrize(
    ("fake", "key", "message"), [(Failing, "d", "in the compiler"), (HalfGradient, "f", "gradient")]
)
def test_a_rung_that_fails_does_not_take_the_others_along(
    tmp_path: Path, small_settings: list[str], fake: type[RungStep], key: str, message: str
) -> None:
    options = LadderOptions(
        "tiny", 1, batch=4, steps=3, mean_tokens=40, rungs="adf", out=tmp_path, settings=small_settings
    )
    with pytest.raises(RunError, match=message):
        run_ladder(options, make=fake)
    report = json.loads((tmp_path / "train.json").read_text())
    rows = {row["key"]: row for row in report["rungs"]}
    assert report["complete"]
    assert message in rows[key]["note"] and "milliseconds" not in rows[key]
    assert ("ZeroDivisionError" in rows[key]["trace"]) is (fake is Failing)
    for other in set("adf") - {key}:
        assert len(rows[other]["steps"]) == 3


def test_what_was_measured_is_written_after_each_rung_and_each_turn(
    tmp_path: Path, small_settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run loses only the current step."""
    written = []

    def keep(path: Path, report: dict) -> None:
        assert path == tmp_path / "train.json"
        timed = {row["key"]: len(row["steps"]) for row in report["rungs"] if "steps" in row}
        written.append((report["complete"], timed))

    monkeypatch.setattr("prior_fast.measure.ladder.bench_ladder.write_json", keep)
    options = LadderOptions(
        "tiny", 1, batch=4, steps=3, mean_tokens=40, rungs="af", out=tmp_path, settings=small_settings
    )
    run_ladder(options)
    each = [{"a": 1}, {"a": 1, "f": 1}, {"a": 2, "f": 2}, {"a": 3, "f": 3}]
    assert written == [*((False, timed) for timed in each), (True, each[-1])]


def test_rungs_are_compared_on_fewer_pairs_than_are_timed(
    small_settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 the plain step of 128 pairs needs more memory than most GPUs have."""
    monkeypatch.setattr("prior_fast.measure.ladder.bench_ladder.CHECKED_PAIRS", 3)
    seen = []

    class Watched(RungStep):
        def terms(self, batch, context):
            seen.append((len(batch), self.same_noise))
            return super().terms(batch, context)

    run_ladder(
        LadderOptions("tiny", 1, 6, steps=1, warm_up=1, mean_tokens=40, rungs="a", settings=small_settings), Watched
    )
    assert {pairs for pairs, checked in seen if checked} == {3}
    assert {pairs for pairs, checked in seen if not checked} == {6}


@pytest.mark.slow
def test_a_compiled_rung_is_compiled_once_and_checked_both_ways(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = CompileCounterWithBackend("aot_eager")
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda loss, **how: compile_with(loss, backend=graphs, **how))
    # A low dropout rate: with four pairs, a rate of 0.1 changes the global term by more than the tolerance.
    config = apply_overrides(config, ["precision=bf16", "model.text.dropout=0.01"])
    rungs = [rung for rung in LADDER if rung.key in "ae"]
    batches = make_batches(config)
    plan = MeasurePlan(batches, batches, CONTEXT, steps=2, warm_up=1)
    model = make_model(config)
    plain, compiled = measure(rungs, lambda rung: RungStep(rung, model, 1, config, CPU), plan)
    assert not plain.problem and not compiled.problem
    assert sum(len(graph.graph.nodes) > 0 for graph in graphs.graphs) == 1
    assert max(compiled.differences.values()) < 5e-3
    assert compiled.compiled_differences.keys() == {
        "loss",
        "global_alignment",
        "local_image",
        "local_text",
        "attention_alignment",
    }
    assert not plain.compiled_differences


def test_what_the_compiler_makes_wrong_is_seen(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The float32 checks do not use the compiler, so the timed step is compared as well."""

    class Miscompiled(RungStep):
        def step(self, batch, context):
            terms = super().step(batch, context)
            return terms | {"local_text": terms["local_text"] * 1.5} if self.compiled else terms

    monkeypatch.setattr(torch, "compile", lambda loss, **how: loss)
    batches = make_batches(config)
    plan = MeasurePlan(batches, batches, CONTEXT, steps=1, warm_up=1)
    model = make_model(config)
    rungs = [rung for rung in LADDER if rung.key in "ae"]
    _, compiled = measure(rungs, lambda rung: Miscompiled(rung, model, 1, config, CPU), plan)
    assert "local_text of batch 0" in compiled.problem


def test_convolutions_are_checked_by_the_library_that_is_timed(config: RunConfig) -> None:
    """Checks use cuDNN too, but without tf32."""
    seen = []

    class Watched(RungStep):
        def terms(self, batch, context):
            seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32))
            return super().terms(batch, context)

    before = torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32
    evaluate(Watched(LAST, make_model(config), 1, config, CPU), make_batches(config), CONTEXT)
    assert seen == [(before[0], False)] * 2 and before[0]
    assert (torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32) == before


def test_a_step_that_moves_parameters_is_seen_to(config: RunConfig) -> None:
    step = RungStep(LAST, make_model(config), 3, config, CPU)
    before = snapshot(step)
    with pytest.raises(RunError, match="does not train"):
        require_movement(step, before)
    step.step(make_batches(config)[0], CONTEXT)
    require_movement(step, before)


def test_the_backends_of_a_rung_end_with_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("PRIOR_FAST_BACKEND", "scipy")
    with backends(PLAIN):
        assert os.environ["PRIOR_FAST_BACKEND"] == "reference"
    with backends(LAST):
        assert "PRIOR_FAST_BACKEND" not in os.environ
    assert os.environ["PRIOR_FAST_BACKEND"] == "scipy"


def test_a_rung_is_compared_with_the_fastest_before_it() -> None:
    results = [Measured(rung, seconds=[time]) for rung, time in zip(LADDER, (9.0, 3.0, 4.0, 3.01, 2.0, 2.5))]
    slower = [rung.key if rung else None for rung in slower_than_before(results)]
    assert slower == [None, None, "b", None, None, "e"]


def test_the_command_writes_a_table_and_a_plot(
    tmp_path: Path, small_settings: list[str], capsys: pytest.CaptureFixture
) -> None:
    words = [
        "--preset",
        "tiny",
        "--batch",
        "4",
        "--steps",
        "2",
        "--warm-up",
        "1",
        "--mean-tokens",
        "40",
        "--rungs",
        "df",
    ]
    assert main(["bench", "train", *words, "--out", str(tmp_path / "out"), "device=cpu", *small_settings]) == 0
    report = json.loads((tmp_path / "out" / "train.json").read_text())
    rows = {row["key"]: row for row in report["rungs"]}
    assert list(rows) == list("abcdef")
    assert rows["b"]["note"] == "not asked for" and "milliseconds" not in rows["b"]
    for key in "adf":
        assert len(rows[key]["steps"]) == 2 and rows[key]["milliseconds"] > 0
        assert max(rows[key]["differences"].values()) < 5e-3
    assert rows["a"]["speedup"] == 1.0
    assert torch.__version__.startswith(report["machine"]["versions"]["torch"])
    assert report["options"]["tokens_of_a_report"] == 40
    assert (tmp_path / "out" / "train.png").read_bytes().startswith(b"\x89PNG")
    assert "(f) kernels, solver" in (tmp_path / "out" / "train.md").read_text()
    assert "(a) plain" in capsys.readouterr().out


def test_the_command_measures_a_prepared_dataset(small_store: Path, small_settings: list[str], capsys) -> None:
    words = ["--preset", "tiny", "--batch", "4", "--steps", "1", "--warm-up", "1", "--rungs", "f"]
    assert main(["bench", "train", *words, "--data", str(small_store), "device=cpu", *small_settings]) == 0
    assert "4 pairs a step" in capsys.readouterr().out


def test_every_width_is_divided_at_the_same_depths() -> None:
    whole, small = make_config(LadderOptions()).model, make_config(LadderOptions(width_divisor=4)).model
    assert (small.image.width, small.text.hidden_size, small.embed_dim) == (16, 192, 192)
    assert (small.text.intermediate_size, small.sentence_decoder.intermediate_size) == (768, 768)
    for name in ("depths", "pool_heads"):
        assert getattr(small.image, name) == getattr(whole.image, name)
    assert (small.text.layers, small.sentence_decoder.layers, small.bank) == (12, 6, whole.bank)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--width-divisor", "5"], "does not divide the width"),
        (["--batch", "1"], "--batch 1: must be at least 2"),
        (["--steps", "0"], "--steps 0"),
        (["--rungs", "ax"], "there is no rung 'x'"),
        (["--preset", "tiny", "batch_size=3"], "use --batch"),
        (["--preset", "huge"], "no preset"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_wrong_use_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "train", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_plain_code_uses_none_of_the_projects_ops_in_bert(monkeypatch: pytest.MonkeyPatch) -> None:
    model = PRIORModel(preset("tiny").model, vocab_size=30)
    undo_rewrites(model)
    for name in ("fuses", "attends_packed"):
        monkeypatch.setattr(bert, name, lambda *_: pytest.fail("the plain model asked for an op"))
    patches = torch.randn(2, 49, model.config.embed_dim)
    assert model.sentence_decoder(patches).shape[0] == 2
    joined = torch.randn(2, 5, 3, 2, 4)
    assert masked_attention(joined, torch.ones(2, 1, 1, 5, dtype=torch.bool), 0.0).shape == (2, 5, 2, 4)
    words = torch.randn(2, 5, model.config.text.hidden_size)
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    model.text_encoder.encoder(words, partial(masked_attention, mask=mask, dropout=0.0))
