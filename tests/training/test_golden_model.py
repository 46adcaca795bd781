"""The whole model, its losses, gradients and training against a recording of the authors' own classes.

golden_model.py says what the recording is. In its losses of stage 3, as here, each query is paired with the prototype
that it was matched to. It also has the losses of the published code, which applies the inverse matching.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from prior_fast.batch import PackedBatch
from prior_fast.model.prior import PRIORModel
from prior_fast.ops.match_prototypes import match_prototypes
from prior_fast.training.distributed import Ranks
from prior_fast.training.step import StageTrainer
from tests.training.golden_checks import Bounds, Gradients, check, check_gradients, check_losses
from tests.training.golden_model import RecordedModel, Recording

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
MODES = pytest.mark.parametrize("mode", ["eval", "train"])
STAGES = pytest.mark.parametrize("stage", [1, 2, 3])


@pytest.fixture(scope="module")
def recorded(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> RecordedModel:
    return RecordedModel(Recording(golden / "whole_model.npz"), tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def recording(recorded: RecordedModel) -> Recording:
    return recorded.recording


def trainer_of(recorded: RecordedModel, model: PRIORModel, stage: int, compile: str = "off") -> StageTrainer:
    return StageTrainer(model, stage, recorded.config(compile), Ranks(0, 1, None, model.logit_scale.device))


def activations(model: PRIORModel, batch: PackedBatch, tau: float | Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The recorded activations, and the indices of the prototypes that the sentences read.

    Each batch normalization runs once, so that running statistics do not matter in training.
    """
    features, pooled = model.image_encoder(batch.images.contiguous(memory_format=torch.channels_last))
    patches = model.local_image_projection(features)
    sentences = model.encode_sentences(batch)
    read = model.sentence_bank(sentences, tau)
    found = {
        "feature_tokens": features,
        "feature_pooled": pooled,
        "patches": patches,
        "global_image": model.global_image_projection(pooled),
        "tokens": model.text_encoder(batch.token_ids, batch.position_ids, batch.cu_tokens, batch.max_tokens),
        "sentences": sentences,
        "lookup": read.output,
        "lookup_l1": read.l1,
        "predicted": model.sentence_decoder(patches),
    }
    sizes = (batch.cu_sentences, batch.max_sentences)
    for stages, text in (("stage1", sentences), ("stage23", read.output)):
        context = model.local_cross_attention(patches, text, *sizes)
        found[f"context_for_image_{stages}"] = context.for_image
        found[f"context_for_text_{stages}"] = context.for_text
        found[f"report_{stages}"] = model.pool_report(text, *sizes)
    found["reconstructed"] = model.reconstruct_images(patches, found["context_for_image_stage23"])
    return found, read.index


@DTYPES
@MODES
def test_activations_of_the_whole_model_are_the_recorded(
    recorded: RecordedModel, recording: Recording, mode: str, dtype: torch.dtype
) -> None:
    model, batch = recorded.model(dtype, mode), recorded.batch(dtype)
    with torch.no_grad():
        found, index = activations(model, batch, recorded.step(dtype).tau)
    bounds = Bounds(recording, dtype, mode)
    for name, actual in found.items():
        check(recording, actual, f"{mode}.{name}", bounds.output(f"{mode}.{name}"))
    assert index.tolist() == recording[f"{mode}.lookup_index"].tolist()
    match = match_prototypes(found["predicted"], found["lookup"], batch.cu_sentences)
    columns = torch.from_numpy(recording[f"{mode}.match_col"]).long()
    # Columns of padding cost the same for a query: their order is arbitrary.
    real = columns < batch.cu_sentences.diff()[:, None]
    assert torch.equal(match, columns.masked_fill(~real, -1))


@DTYPES
@MODES
@STAGES
def test_losses_of_each_stage_are_the_recorded(
    recorded: RecordedModel, recording: Recording, stage: int, mode: str, dtype: torch.dtype
) -> None:
    trainer = trainer_of(recorded, recorded.model(dtype, mode), stage)
    with torch.no_grad():
        terms = trainer.evaluate(recorded.batch(dtype), recorded.step(dtype))
    assert {term.dtype for term in terms.values()} == {dtype}
    check_losses(recorded, terms, mode, stage, Bounds(recording, dtype, mode))


@pytest.mark.parametrize("term", ["spg_loss", "kl_loss", "gpa_loss"])
def test_the_recording_tells_the_matching_from_its_inverse(recording: Recording, term: str) -> None:
    """Otherwise the test of the losses would accept the inverse, which the published code applies."""
    for mode in ("eval", "train"):
        consistent, published = (recording[f"{mode}.loss.stage3.{kind}{term}"].item() for kind in ("", "published."))
        assert abs(consistent - published) > 1e-6 * abs(consistent)


@DTYPES
@STAGES
def test_gradients_of_each_stage_are_the_recorded(
    recorded: RecordedModel, recording: Recording, stage: int, dtype: torch.dtype, gradients_by_name: Gradients
) -> None:
    model = recorded.model(dtype)
    trainer_of(recorded, model, stage).evaluate(recorded.batch(dtype), recorded.step(dtype))["loss"].backward()
    check_gradients(recorded, model, gradients_by_name, stage, Bounds(recording, dtype, "train"))


def test_running_statistics_after_a_step_of_stage_3_are_the_recorded(
    recorded: RecordedModel, recording: Recording
) -> None:
    model = recorded.model(torch.float64)
    trainer_of(recorded, model, 3).evaluate(recorded.batch(torch.float64), recorded.step(torch.float64))
    state = recorded.by_authors_names(model.state_dict())
    names = recording.names("train.after.")
    assert names
    for name in names:
        check(recording, state[name], f"train.after.{name}", 1e-11)


def train(recorded: RecordedModel, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    """The recorded training: the totals before each step, and the state at the end by the authors' names."""
    recording, model = recorded.recording, recorded.model(dtype)
    batch, step = recorded.batch(dtype), recorded.step(dtype)
    losses = []
    for stage in (1, 2, 3):
        trainer = trainer_of(recorded, model, stage)
        for group in trainer.optimizer.param_groups:
            assert group["betas"] == (recording.meta("beta1"), recording.meta("beta2"))
            assert group["eps"] == recording.meta("eps") and group["weight_decay"] == recording.meta("weight_decay")
        for _ in range(int(recording.meta("steps_per_stage"))):
            losses.append(trainer.step(batch, step, recording.meta("lr"))["loss"].detach())
    return torch.stack(losses), recorded.by_authors_names(model.state_dict())


@DTYPES
def test_steps_of_the_optimizer_in_all_stages_are_the_recorded(
    recorded: RecordedModel, recording: Recording, dtype: torch.dtype
) -> None:
    losses, state = train(recorded, dtype)
    exact = dtype == torch.float64
    check(recording, losses, "trajectory.losses", 1e-10 if exact else 5 * recording.noise("trajectory.losses"))
    if not exact:
        return  # Adam divides a gradient by its own size: an error of a small gradient becomes one of a whole step
    names = recording.names("trajectory.after.")
    assert len(names) > 20
    for name in names:
        check(recording, state[name], f"trajectory.after.{name}", 1e-9)


class Ops(TorchDispatchMode):
    """Notes the names of the project's own ops."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "prior_fast":
            self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


# The interpreter, which is numpy, warns of the differences of infinities that the kernels mask.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.device
@STAGES
def test_with_the_kernels_losses_and_gradients_are_the_recorded(
    recorded: RecordedModel,
    recording: Recording,
    stage: int,
    gradients_by_name: Gradients,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a GPU, or in Triton's interpreter."""
    monkeypatch.setenv("PRIOR_FAST_BACKEND", "triton")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32
    model = recorded.model(dtype).to(device)
    bounds = Bounds(recording, dtype, "train")
    with torch.backends.cudnn.flags(allow_tf32=False), Ops() as ops:
        trainer = trainer_of(recorded, model, stage)
        # `Ops` sees the operations of its own thread only.
        trainer.close()
        trainer.branches = None
        terms = trainer.evaluate(recorded.batch(dtype).to(device), recorded.step(dtype, device))
        terms["loss"].backward()
    wanted = {"sigmoid_attention", "info_nce", "segment_info_nce", "segment_mean"}
    wanted |= {"prototype_lookup"} if stage > 1 else set()
    wanted |= {"prototype_kl"} if stage > 2 else set()
    assert wanted <= ops.names and {f"{name}_backward" for name in wanted} <= ops.names
    check_losses(recorded, terms, "train", stage, bounds)
    check_gradients(recorded, model, gradients_by_name, stage, bounds)


@pytest.mark.slow
@STAGES
def test_compiled_losses_and_gradients_are_the_recorded(
    recorded: RecordedModel, recording: Recording, stage: int, gradients_by_name: Gradients
) -> None:
    dtype = torch.float64
    model, bounds = recorded.model(dtype), Bounds(recording, dtype, "train")
    trainer = trainer_of(recorded, model, stage, compile="on")
    assert trainer.compiled
    # torch 2.11 compiles its fused attention of a CPU to a backward pass that refuses float64.
    with sdpa_kernel(SDPBackend.MATH):
        terms = trainer.evaluate(recorded.batch(dtype), recorded.step(dtype))
        terms["loss"].backward()
    check_losses(recorded, terms, "train", stage, bounds)
    check_gradients(recorded, model, gradients_by_name, stage, bounds)
