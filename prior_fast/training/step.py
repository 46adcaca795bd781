"""One optimizer step of a stage, and what it needs: the trained parameters, their optimizer, data parallelism."""

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from prior_fast.batch import PackedBatch
from prior_fast.config import RunConfig
from prior_fast.errors import UsageError
from prior_fast.model.prior import PRIORModel
from prior_fast.ops.common.triton import triton_unavailable
from prior_fast.training.branches import Branches
from prior_fast.training.chosen_convs import check_convolutions, choose_convolutions
from prior_fast.training.cuda_graphs import Parts
from prior_fast.training.distributed import Ranks
from prior_fast.training.finite import GRADIENT_NORM
from prior_fast.training.fused_adam import FusedAdam
from prior_fast.training.joined_gradients import JoinedGradients
from prior_fast.training.recorded_text import filled
from prior_fast.training.stages import STAGES, StepContext, weighted_sum


class StageLoss(nn.Module):
    """A stage's loss as a module, so that data parallelism can wrap it."""

    def __init__(self, model: PRIORModel, stage: int, config: RunConfig) -> None:
        super().__init__()
        self.model = model
        self.stage = stage
        self.config = config

    def forward(self, batch: PackedBatch, step: StepContext) -> dict[str, Tensor]:
        """The stage's terms, and `loss`, their weighted sum."""
        terms = STAGES[self.stage](self.model, batch, step)
        return {"loss": weighted_sum(terms, self.config.loss, self.stage), **terms}


class StageTrainer:
    """Runs the steps of one stage. Each stage has a new optimizer (released; the supplement says nothing about it)."""

    def __init__(self, model: PRIORModel, stage: int, config: RunConfig, ranks: Ranks) -> None:
        self.model, self.stage = model, stage
        self.config = config
        self.ranks = ranks
        self.parameters = train_only(model, stage)
        self.optimizer = make_optimizer(config, self.parameters)
        self.autocast = make_autocast(config.precision, ranks.device)
        self.loss: nn.Module = StageLoss(model, stage, config)
        self.compiled = compiles(config, ranks.device)
        check_convolutions(config, ranks.device, self.compiled)
        self.convolutions_chosen = not config.model.reconstructs(stage)
        if self.compiled:
            self.loss = compile_loss(self.loss)
        self.branches = Branches() if branches_off(config, ranks) else None
        self.records = records_parts(config, ranks)
        self.parts: Parts | None = None
        self.gradients: JoinedGradients | None = None
        if ranks.exchange is not None:
            self.gradients = JoinedGradients(self.parameters.values(), ranks.exchange)
        elif ranks.group is not None:
            # The wrapper is around the compiled loss, whose backward pass is then split where a bucket of gradients is
            # full and can be sent. Compiling the wrapper too would add graphs for its own bookkeeping.
            # Buffers are not broadcast: joined statistics are equal on all ranks, and without them any rank's will do.
            self.loss = DistributedDataParallel(self.loss, broadcast_buffers=False)

    def step(self, batch: PackedBatch, context: StepContext, learning_rate: float) -> dict[str, Tensor]:
        """Forward, backward, update; returns the loss terms of the joined batch, still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        with self.autocast:
            terms = self.evaluate(batch, context)
        if self.gradients is None:
            self.optimizer.zero_grad(set_to_none=True)
            terms["loss"].backward()
        else:
            self.gradients.clear()
            terms["loss"].backward()
            self.gradients.average()
        # Of the averaged gradients, so equal on all ranks; it stays on the device.
        return {**average_over_ranks(terms, self.ranks), GRADIENT_NORM: self.update()}

    def update(self) -> Tensor:
        """Clip the gradients and update; returns their norm before clipping, [] float32."""
        if isinstance(self.optimizer, FusedAdam):
            norm = self.optimizer.clipped_step(self.config.clip_norm)
            if self.parts is not None and self.parts.copies is not None:
                self.parts.copies.current()
            return norm
        norm = self._clip()
        self.optimizer.step()
        return norm

    def _clip(self) -> Tensor:
        """Clip the gradients; returns their norm before, [] float32."""
        if self.config.clip_norm:
            return nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip_norm)
        gradients = (parameter.grad for parameter in self.parameters.values() if parameter.grad is not None)
        return nn.utils.get_total_norm(list(gradients))

    def _recorded_parts(self, batch: PackedBatch) -> Parts:
        """The recorded parts for batches of this size; the optimizer keeps their narrow weights up to date."""
        fused = self.optimizer if isinstance(self.optimizer, FusedAdam) else None
        longest = self.config.data.max_tokens
        parts = Parts(self.model, self.stage, batch, self.ranks.device, longest, with_copies=fused is not None)
        if fused is not None and parts.copies is not None:
            fused.use_copies(parts.copies.by_weight)
        return parts

    def close(self) -> None:
        """Release the recorded parts and the thread of the branches."""
        if self.parts is not None:
            self.parts.close()
            self.parts = None
        if self.branches is not None:
            self.branches.close()

    def evaluate(self, batch: PackedBatch, context: StepContext) -> dict[str, Tensor]:
        """The stage's terms and `loss`, in the precision of the caller's context."""
        if not self.compiled:
            return self.loss(batch, dataclasses.replace(context, branches=self.branches))
        # Floats of layers and of the config do not change. As variables they would be turned into constants by the ops
        # that need compile-time constants, and everything would be traced a second time.
        # torch caches a graph with a custom gradient, the max-pooling's, only if `cached` allows it. This is safe: the
        # key of a cache entry contains the traced gradient (tests/model/test_max_pool.py).
        cached = torch._functorch.config.patch(autograd_cache_allow_custom_autograd_functions=True)
        with torch._dynamo.config.patch(specialize_float=True), cached:
            if not self.convolutions_chosen and torch.is_grad_enabled():
                choose_convolutions(self.model, self.config, batch, self.ranks.device)
                self.convolutions_chosen = True
            if self.records and torch.is_grad_enabled():
                if self.parts is None:
                    self.parts = self._recorded_parts(batch)
                batch = self.parts.prepare(batch)
            if self.config.data.token_bucket and batch.filler < 2:
                # Code that is traced with filler does not serve a batch that happens to need none, or a single token.
                batch = filled(batch, self.config.data.token_bucket)
            return self.loss(*for_compiler(batch, context))


def compiles(config: RunConfig, device: torch.device) -> bool:
    """Whether steps are compiled: compile=auto compiles on GPUs, where a long run repays the compile time."""
    return config.compile == "on" or (config.compile == "auto" and device.type == "cuda")


def branches_off(config: RunConfig, ranks: Ranks) -> bool:
    """Whether independent parts of a step run at once: in steps of a single process on a CPU that are not compiled."""
    single = ranks.group is None and ranks.device.type == "cpu"
    return single and not compiles(config, ranks.device) and torch.get_num_threads() > 1


def records_parts(config: RunConfig, ranks: Ranks) -> bool:
    """Whether the image parts of a step are CUDA graphs: in compiled steps of a single process on a GPU.

    Raises:
        UsageError: cuda_graphs=on where they can't be used.
    """
    reasons = {
        f"device={ranks.device.type}": ranks.device.type != "cuda",
        f"compile={config.compile}": not compiles(config, ranks.device),
        "several processes": ranks.group is not None,
    }
    reason = next((name for name, holds in reasons.items() if holds), None)
    if reason and config.cuda_graphs == "on":
        raise UsageError(
            f"cuda_graphs=on does not go with {reason}: it is for compiled steps of a single process on a GPU; auto "
            "turns it on there"
        )
    return reason is None and config.cuda_graphs != "off"


def compile_loss(loss: nn.Module) -> nn.Module:
    """The loss, forward and backward, as one graph for all token and sentence counts, temperatures and seeds."""
    # Other stages of the same model may have been compiled before: drop their code.
    torch._dynamo.reset()
    return torch.compile(loss, dynamic=True)  # type: ignore[return-value]


def for_compiler(batch: PackedBatch, context: StepContext) -> tuple[PackedBatch, StepContext]:
    """Mark the sizes of `batch` that are equal in all batches, those that count pairs, and replace floats by tensors.

    A float would become part of the graph, and a new temperature would need a new graph. The tensors are filled on the
    device, so that the host does not wait. A dimension of size 1 is a case of its own for the compiler, which would
    trace the step again for the first batch whose reports have one sentence each. `max_sentences`, which only sizes
    padding, is therefore at least 2.
    """
    for x in (batch.images, batch.cu_tokens, batch.cu_sentences, batch.study_ids, batch.image_rows):
        torch._dynamo.mark_static(x)

    def fill(value: float | Tensor) -> Tensor:
        return value if isinstance(value, Tensor) else torch.full((), value, device=batch.images.device)

    return (
        dataclasses.replace(
            batch,
            sentence_share=fill(batch.sentence_share),
            max_sentences=max(batch.max_sentences, 2),
        ),
        dataclasses.replace(context, tau=fill(context.tau)),
    )


def train_only(model: PRIORModel, stage: int) -> dict[str, nn.Parameter]:
    """Enable gradients only for the parts that `stage` trains; returns their parameters by name."""
    model.requires_grad_(False)
    for part in model.stage_modules(stage):
        part.requires_grad_(True)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def make_optimizer(config: RunConfig, parameters: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    """Adam (supplement 2.4) or AdamW (released). A group's learning rate is that of the step times its `factor`."""
    groups, decay = parameter_groups(config, parameters), config.weight_decay
    if fuses_optimizer(config, next(iter(parameters.values()))):
        return FusedAdam(groups, weight_decay=decay, decoupled=config.optimizer == "adamw")
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(groups, weight_decay=decay, fused=True)


def fuses_optimizer(config: RunConfig, parameter: Tensor) -> bool:
    """Whether the project's kernels clip and update parameters like this one: on GPUs that Triton serves.

    Raises:
        UsageError: optimizer_kernel=triton where they can't.
    """
    if config.optimizer_kernel == "torch" or (config.optimizer_kernel == "auto" and parameter.device.type != "cuda"):
        return False
    reason = triton_unavailable(parameter)
    if reason and config.optimizer_kernel == "triton":
        raise UsageError(f"optimizer_kernel=triton: {reason}; auto takes torch's optimizer there")
    return reason is None


def parameter_groups(config: RunConfig, parameters: dict[str, nn.Parameter]) -> list[dict[str, Any]]:
    """The parameters by their factor of the learning rate: `text_learning_rate` for the text encoder, 1 for others."""
    factors = {name: config.text_learning_rate if name.startswith("text_encoder.") else 1.0 for name in parameters}
    return [
        {"params": [parameters[name] for name in parameters if factors[name] == factor], "factor": factor}
        for factor in sorted(set(factors.values()))
    ]


def make_autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context that a step's forward pass runs in.

    Raises:
        UsageError: precision=bf16 on a GPU without bfloat16.
    """
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UsageError("precision=bf16: this GPU has no bfloat16; use precision=fp32")
    if runs_in_bf16(precision, device):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def runs_in_bf16(precision: str, device: torch.device) -> bool:
    """Whether the forward pass of a run with this setting is in bfloat16."""
    return precision == "bf16" or (precision == "auto" and bf16_is_fast(device))


def bf16_is_fast(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; without them it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def average_over_ranks(terms: dict[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """The terms' means over the ranks, which are the terms of the joined batch."""
    if ranks.group is None:
        return terms
    values = torch.stack([term.detach().float() for term in terms.values()])
    if ranks.exchange is not None:
        ranks.exchange.sum_(values)
    else:
        torch.distributed.all_reduce(values, group=ranks.group)
    return dict(zip(terms, values / ranks.count))
