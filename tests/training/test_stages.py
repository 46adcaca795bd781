"""The three stages on made-up batches: their terms, their gradients, reads by the host, and inputs that they refuse."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.config import ModelConfig, apply_overrides, preset
from prior_fast.errors import RunError
from prior_fast.model.batch_norm import SyncRowNorm
from prior_fast.model.prior import PRIORModel
from prior_fast.model.projection import RowNorm
from prior_fast.training.checkpoint import Position
from prior_fast.training.log import LossWindow
from prior_fast.training.stages import STAGES, StepContext, channel_mask, gather_matched, stage1, stage2, weighted_sum

TERMS = {
    1: {"global_alignment", "local_image", "local_text", "attention_alignment"},
    2: {"global_alignment", "local_image", "local_text", "attention_alignment", "prototype"},
    3: {
        "global_alignment", "local_image", "local_text", "attention_alignment", "prototype",
        "image_reconstruction", "prototype_generation", "prototype_kl", "report_generation",
    },
}  # fmt: skip


@pytest.fixture
def config(small_settings: list[str]):
    return apply_overrides(preset("tiny"), small_settings)


def make_model(config: ModelConfig) -> PRIORModel:
    torch.manual_seed(0)
    return PRIORModel(config, vocab_size=50)


def make_batch(rng: np.random.Generator, sentences: tuple[int, ...] = (3, 1, 16, 5)) -> PackedBatch:
    reports = [[rng.integers(5, 50, rng.integers(1, 9)) for _ in range(n)] for n in sentences]
    images = torch.tensor(rng.normal(size=(len(sentences), 1, 224, 224)), dtype=torch.float32)
    numbers = torch.arange(len(sentences))
    return pack_reports(reports, 2, 3).with_images(images, study_ids=numbers, image_rows=numbers)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_gradients_reach_the_parts_of_the_stage_and_no_others(config, rng: np.random.Generator, stage: int) -> None:
    model = make_model(config.model)
    terms = STAGES[stage](model, make_batch(rng), StepContext(0.5, seed=7))
    assert set(terms) == TERMS[stage]
    assert all(term.shape == () and math.isfinite(term.item()) for term in terms.values())
    weighted_sum(terms, config.loss, stage).backward()
    trained = {
        id(p)
        for part in model.stage_modules(stage)
        for p in (part.parameters() if isinstance(part, nn.Module) else [part])
    }
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in trained), name


def test_generated_reports_leave_the_running_statistics_alone(config, rng: np.random.Generator) -> None:
    """Stages 2 and 3 pool the same real reports; stage 3 also pools generated ones."""
    batch = make_batch(rng)
    projections = []
    for stage in (2, 3):
        model = make_model(config.model).train()
        STAGES[stage](model, batch, StepContext(0.5, seed=7))
        projections.append(dict(model.global_text_projection.named_buffers()))
    assert projections[1]["1.num_batches_tracked"] == 1
    assert projections[1]["1.running_mean"].abs().max() > 0
    for name, statistic in projections[0].items():
        assert torch.equal(statistic, projections[1][name]), name


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", [RowNorm, SyncRowNorm])
def test_untracked_rows_are_normalized_by_their_own_statistics(
    kind: type[nn.Module], compiled: bool, rng: np.random.Generator
) -> None:
    norm = kind(6).train()
    if compiled:
        norm.compile(fullgraph=True, backend="aot_eager")
    x = torch.tensor(rng.normal(3, 2, size=(5, 4, 6)), dtype=torch.float32)
    rows = x.double().flatten(0, 1)
    expected = (rows - rows.mean(0)) / (rows.var(0, correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(norm(x, tracked=False).double().flatten(0, 1), expected, rtol=1e-5, atol=1e-5)
    assert norm.num_batches_tracked == 0 and not norm.running_mean.any()
    torch.testing.assert_close(norm(x).double().flatten(0, 1), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_mean.double(), rows.mean(0) * 0.1, rtol=1e-5, atol=1e-6)
    # In evaluation the running statistics are used in any case.
    assert torch.equal(norm.eval()(x, tracked=False), norm(x))


def test_weights_of_the_terms_are_the_configurations() -> None:
    config = preset("paper")
    terms = {name: torch.tensor(10.0**i, dtype=torch.float64) for i, name in enumerate(sorted(TERMS[3]))}
    names = sorted(TERMS[3])
    weights = {n: {"global_alignment": 10, "prototype": 10, "prototype_generation": 10}.get(n, 1) for n in names}
    expected = sum(weights[name] * 10.0**i for i, name in enumerate(names))
    assert weighted_sum(terms, config.loss, 3).item() == pytest.approx(expected, rel=1e-12)
    first = {name: torch.tensor(1.0) for name in TERMS[1]}
    assert weighted_sum(first, config.loss, 1).item() == 4.0


def test_noise_follows_the_seed_and_evaluation_has_none(config, rng: np.random.Generator) -> None:
    model, batch = make_model(config.model).eval(), make_batch(rng)
    for stage in (2, 3):

        def run(seed: int | None, stage: int = stage) -> Tensor:
            with torch.no_grad():
                return weighted_sum(STAGES[stage](model, batch, StepContext(0.5, seed)), config.loss, stage)

        assert run(1) == run(1)
        assert run(1) != run(2)
        assert run(None) == run(None)


class NoHostReads(TorchDispatchMode):
    """Fails on every operation that would make the host wait for a GPU."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "_unique2", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.FORBIDDEN, func
        if name in ("index", "index_put", "index_put_"):
            assert not any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("stage", [stage1, stage2])
def test_a_step_reads_nothing_back(config, rng: np.random.Generator, stage) -> None:
    model, batch = make_model(config.model), make_batch(rng)
    with NoHostReads():
        weighted_sum(stage(model, batch, StepContext(0.5, 7)), config.loss, 2).backward()


def test_the_detector_of_host_reads_works() -> None:
    with pytest.raises(AssertionError), NoHostReads():
        torch.ones(3)[torch.tensor([True, False, True])]
    with pytest.raises(AssertionError), NoHostReads():
        torch.ones(1).item()


def test_the_global_loss_counts_ten_times_in_stage_3_alone() -> None:
    """The released weight, which `paper` has too."""
    for name in ("paper", "released"):
        weights = preset(name).loss
        terms = {"global_alignment": torch.tensor(1.0)}
        assert [weighted_sum(terms, weights, stage).item() for stage in (1, 2, 3)] == [1, 1, 10]


def test_each_query_has_its_matched_prototype_and_each_sentence_its_matched_query(rng: np.random.Generator) -> None:
    lengths, queries = [3, 1, 4], 4
    cu = torch.tensor([0, 3, 4, 8], dtype=torch.int32)
    match = torch.full((3, queries), -1)
    for report, n in enumerate(lengths):
        match[report, rng.permutation(queries)[:n]] = torch.tensor(rng.permutation(n))
    prototypes = torch.tensor(rng.normal(size=(8, 5)))
    target, query = gather_matched(match, cu, prototypes)
    for report in range(3):
        for q in range(queries):
            taken = match[report, q]
            expected = prototypes[cu[report] + taken] if taken >= 0 else torch.zeros(5, dtype=torch.float64)
            assert torch.equal(target[report, q], expected)
            if taken >= 0:
                assert query[cu[report] + taken] == report * queries + q


def test_masking_drops_channels_and_keeps_the_mean(rng: np.random.Generator) -> None:
    batch = make_batch(rng, (1, 1))
    mask = channel_mask(torch.zeros(2, 49, 20_000), 0.25, batch, seed=5)
    assert mask is not None
    assert mask.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert mask.mean().item() == pytest.approx(1.0, abs=0.02)
    assert not torch.equal(mask[0], mask[1])
    assert channel_mask(torch.zeros(2, 49, 8), 0.25, batch, seed=None) is None
    assert channel_mask(torch.zeros(2, 49, 8), 0.0, batch, seed=5) is None


def test_a_rank_draws_the_noise_of_its_rows_in_the_joined_batch(rng: np.random.Generator) -> None:
    import dataclasses

    joined = make_batch(rng, (1, 1, 1, 1))
    second_half = dataclasses.replace(make_batch(rng, (1, 1)), first_pair=2)
    whole = channel_mask(torch.zeros(4, 49, 32), 0.5, joined, seed=5)
    part = channel_mask(torch.zeros(2, 49, 32), 0.5, second_half, seed=5)
    assert whole is not None and part is not None
    assert torch.equal(whole[2:], part)


def test_a_loss_that_is_not_finite_is_named() -> None:
    window = LossWindow()
    for value in (1.0, float("nan"), 2.0):
        window.add({"loss": torch.tensor(1.0), "local_text": torch.tensor(value)})
    with pytest.raises(RunError, match="stage 2, step 9: the loss term local_text is nan"):
        window.close(Position(stage=2, step=10, total_steps=50))


def test_a_window_gives_means_and_starts_anew() -> None:
    window = LossWindow()
    for value in (1.0, 2.0, 6.0):
        window.add({"loss": torch.tensor(value)})
    values = window.close(Position(1, 3, 3))
    assert values["loss"] == 3.0
    window.add({"loss": torch.tensor(5.0)})
    assert window.close(Position(1, 4, 4))["loss"] == 5.0
