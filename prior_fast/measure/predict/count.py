"""Counts the calls of a training step: those of a compiled step on a GPU, or of a plain step on a CPU."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prior_fast.batch import FILLERS, PackedBatch
from prior_fast.config import RunConfig
from prior_fast.measure.ladder.batches import VOCABULARY, made_up_batches
from prior_fast.measure.predict import fakes  # noqa: F401  the operations' results without data
from prior_fast.measure.predict.compiled import CompiledStep
from prior_fast.measure.predict.eager import EagerStep
from prior_fast.measure.predict.optimizer import OptimizerKernel, update_calls
from prior_fast.measure.predict.parts import OWN, REST, Call
from prior_fast.measure.predict.products import name_of, size
from prior_fast.measure.predict.shapes import empty_batch, move_model, replaced, shape_model, without_data
from prior_fast.model.narrow_conv import EIGHT, NarrowConv2d
from prior_fast.model.padded_conv import PaddedConv2d
from prior_fast.model.prior import PRIORModel
from prior_fast.model.stem_conv import StemConv2d
from prior_fast.model.upsampled_conv import UpsampledConv2d
from prior_fast.training import stages
from prior_fast.training.narrow_weights import product_weights
from prior_fast.training.recorded_text import filled
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageLoss, train_only


@dataclass(frozen=True)
class Counted:
    """The calls of a step and the sizes they were counted for."""

    calls: list[Call]
    tokens: int
    sentences: int
    parameters: int


def count_step(
    config: RunConfig,
    stage: int,
    mean_tokens: int,
    device: str,
    dtype: torch.dtype,
) -> Counted:
    """The calls of a step of `stage` on a made-up batch. Nothing is computed, and no GPU is needed.

    config: its batch_size is the number of pairs.
    device: "cuda": a compiled step with recorded parts; "cpu": a step without torch.compile.
    """
    (batch,) = made_up_batches(config, 1, mean_tokens, VOCABULARY, config.seed)
    text = filled(batch) if device == "cuda" and dtype != torch.float32 else batch
    lengths = text.cu_tokens.diff().tolist()
    squared = sum(n * n for n in lengths) + _filler(text)
    model = shape_model(config.model)
    with without_data(device, dtype):
        move_model(model, device)
        parameters = train_only(model, stage)
        numbers = [x.numel() for x in parameters.values()]
        narrowed = 0
        step: Any
        if device == "cuda":
            _as_compiled(model)
            step = CompiledStep(len(text.token_ids), squared)
            parts = recorded_parts(model, stage)
            if dtype != torch.float32:
                weights = [x for part in parts for x in product_weights(part).values()]
                _narrow(parts, dtype)
                narrowed = sum(x.numel() for x in weights)
            _watch(model, parts, step)
        else:
            step = EagerStep(squared)
        with step, replaced(stages, "match_prototypes", partial(_match, step)):
            context = StepContext(config.model.bank.tau_start, 0)
            loss = StageLoss(model, stage, config)(empty_batch(text, device), context)
            if device == "cpu":
                torch.set_autocast_enabled("cpu", False)
                loss["loss"].backward()
    clips = bool(config.clip_norm)
    each = numbers if device == "cpu" else ()
    update = update_calls(sum(numbers), narrowed, update_kernel(config, device), clips, each)
    calls = step.calls + update
    return Counted(calls, len(batch.token_ids), batch.num_sentences, sum(numbers))


def update_kernel(config: RunConfig, device: str) -> OptimizerKernel:
    """What clips and updates on a device of this kind."""
    return "triton" if device == "cuda" and config.optimizer_kernel != "torch" else "torch"


def recorded_parts(model: PRIORModel, stage: int) -> list[nn.Module]:
    """The modules that a step on a GPU replays as CUDA graphs (`prior_fast.training.cuda_graphs`)."""
    parts: list[nn.Module] = [model.image_encoder, model.text_encoder]
    return [*parts, model.image_decoder, model.sentence_decoder] if model.config.reconstructs(stage) else parts


def _filler(batch: PackedBatch) -> int:
    """The sum of the squares of the tokens of the filler's segments."""
    return batch.filler**2 // FILLERS


def _as_compiled(model: nn.Module) -> None:
    """Replace the layers that have another form under torch.compile on a GPU by this form."""
    for module in model.modules():
        if hasattr(module, "compiled_forward"):
            module.forward = module.compiled_forward  # type: ignore[assignment]


def _narrow(parts: list[nn.Module], dtype: torch.dtype) -> None:
    """Make the weights of products narrow at once, as recorded parts do, so that none is cast where it is used."""
    for part in parts:
        for module in part.modules():
            own = product_weights(module).get("weight") if not list(module.children()) else None
            if own is not None:
                module.weight = nn.Parameter(own.detach().to(dtype))


def _watch(model: nn.Module, parts: list[nn.Module], step: CompiledStep) -> None:
    """Count what a forward pass by single calls does not show.

    These are the copies of a recording's inputs and outputs and their gradients, and the kernels that torch.compile
    makes of the many calls that rearrange a convolution's weights or result.
    """

    def copied(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        step.add(REST, "element-wise", "copies for a recording", "float32", bytes=2 * size(args))
        for x in outputs:
            step.add(REST, "element-wise", "copies for a recording", x.dtype, bytes=4 * size(x), launches=2)

    for part in parts:
        part.register_forward_hook(copied)
    begin: list[int] = []
    for module in model.modules():
        if isinstance(module, FUSED):
            module.register_forward_pre_hook(lambda *_: begin.append(len(step.calls)))
            module.register_forward_hook(lambda own, args, output: step.fuse(begin.pop(), *_fused_bytes(own, output)))


# Layers whose calls besides the convolution or product become one kernel forward and one backward.
FUSED = (StemConv2d, UpsampledConv2d, PaddedConv2d, NarrowConv2d)


def _fused_bytes(module: nn.Module, output: Tensor) -> tuple[int, int]:
    """Bytes that such a kernel reads and writes, forward and backward."""
    if isinstance(module, NarrowConv2d):
        # Each pixel's share of all pixels around it; the gradient has rows up to a multiple of eight.
        taps = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        return (taps + 1) * size(output), (taps + -taps % EIGHT + 1) * size(output)
    weight = module.weight
    assert isinstance(weight, Tensor)
    # The kernel of an upsampled image has 16 taps for 9.
    made = weight.numel() * output.element_size() * (16 if isinstance(module, UpsampledConv2d) else 9) // 9
    return size(weight) + made, size(weight) + made


def _match(step: Any, prediction: Tensor, target: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Counts the matching as one call of the compiled solver, whether or not it is built on this machine."""
    reports, queries, width = prediction.shape
    operations = 3 * queries * len(target) * width  # of the distances
    work = {"operations": operations, "bytes": size(prediction, target) + 8 * reports * queries}
    step.calls.append(Call(OWN, "own", "match_prototypes", name_of(prediction.dtype), **work))
    return torch.empty(reports, queries, dtype=torch.int64, device=prediction.device)
