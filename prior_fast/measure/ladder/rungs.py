"""The rungs of the ladder: one model and one training step, from plain PyTorch to what `prior-fast train` does."""

import copy
import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prior_fast.batch import PackedBatch
from prior_fast.config import RunConfig
from prior_fast.measure.plain.batch import PlainBatch, pad_batch
from prior_fast.measure.plain.encoders import pad_text, undo_rewrites
from prior_fast.measure.plain.noise import SameNoise, TorchNoise
from prior_fast.measure.plain.stages import plain_terms
from prior_fast.model.prior import PRIORModel
from prior_fast.ops.common.backend import ENVIRONMENT_VARIABLE
from prior_fast.training.distributed import Ranks
from prior_fast.training.finite import GRADIENT_NORM
from prior_fast.training.stages import STAGES, StepContext, weighted_sum
from prior_fast.training.step import StageTrainer, make_autocast, parameter_groups, train_only


@dataclass(frozen=True)
class Rung:
    """What a step is made of. Each rung adds one thing to the rung before it.

    Attributes:
        key: its letter.
        name: its name in a few words.
        vectorized: no Python loop over samples.
        packed: BERT without padding.
        rewritten: the exact rewrites, and the trainer's own step (fused optimizer, channels-last layout).
        compiled: torch.compile.
        kernels: the ops choose their backends: Triton on a GPU, the C++ solver on a CPU. If false, they use plain
            PyTorch and SciPy.
    """

    key: str
    name: str
    vectorized: bool = True
    packed: bool = True
    rewritten: bool = True
    compiled: bool = False
    kernels: bool = False


LADDER = (
    Rung("a", "plain", vectorized=False, packed=False, rewritten=False),
    Rung("b", "vectorized", packed=False, rewritten=False),
    Rung("c", "packed", rewritten=False),
    Rung("d", "exact rewrites"),
    Rung("e", "torch.compile", compiled=True),
    Rung("f", "kernels, solver", kernels=True),
)


class RungStep:
    """A rung, ready to take steps of a stage on its own copy of a model.

    Attributes:
        model: the copy; its state dict has the same names on every rung.
        parameters: those that the stage trains, by name.
        same_noise: whether plain code draws the same noise as the model, for comparisons. If false, it draws its own
            noise, which is cheaper.
    """

    def __init__(self, rung: Rung, model: PRIORModel, stage: int, config: RunConfig, device: torch.device) -> None:
        self.rung, self.stage, self.config = rung, stage, config
        self.model = copy.deepcopy(model).to(device).train()
        self.same_noise = False
        self._padded: dict[int, PlainBatch] = {}
        if not rung.rewritten:
            undo_rewrites(self.model)
        if not rung.packed:
            pad_text(self.model, config.data.max_tokens, packed=rung.vectorized)
        self.trainer: StageTrainer | None = None
        if rung.rewritten:
            # The last rung uses the config unchanged, as training does.
            own = config if rung.kernels else dataclasses.replace(config, compile="on" if rung.compiled else "off")
            self.trainer = StageTrainer(self.model, stage, own, Ranks(0, 1, None, device))
            self.parameters: Mapping[str, nn.Parameter] = self.trainer.parameters
        else:
            self.parameters = train_only(self.model, stage)
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
            rate = config.learning_rate[stage - 1]
            groups = parameter_groups(config, self.parameters)
            groups = [{**group, "lr": rate * group["factor"]} for group in groups]
            self.optimizer = kind(groups, weight_decay=config.weight_decay)
        self.autocast = make_autocast(config.precision, device)

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of the optimizer's state."""
        optimizer = self.trainer.optimizer if self.trainer is not None else self.optimizer
        state = [x for slots in optimizer.state.values() for x in slots.values() if isinstance(x, Tensor)]
        return sum(x.numel() * x.element_size() for x in state)

    @property
    def compiled(self) -> bool:
        """Whether this rung's steps are compiled by torch.compile."""
        return self.trainer is not None and self.trainer.compiled

    def prepare(self, batch: PackedBatch) -> None:
        """Pad `batch` before the step if the rung needs padding: a plain loader delivers padded batches."""
        if not self.rung.vectorized and id(batch) not in self._padded:
            self._padded[id(batch)] = pad_batch(batch, self.config.data.max_tokens)

    def terms(self, batch: PackedBatch, context: StepContext) -> dict[str, Tensor]:
        """The stage's terms and `loss`, their weighted sum, with a gradient."""
        self.prepare(batch)
        with backends(self.rung):
            if self.trainer is not None:
                return self.trainer.evaluate(batch, context)
            if self.rung.vectorized:
                terms = STAGES[self.stage](self.model, batch, context)
            else:
                noise = SameNoise(context) if self.same_noise else TorchNoise()
                terms = plain_terms(self.model, self._padded[id(batch)], self.stage, context.tau, noise)
        return {"loss": weighted_sum(terms, self.config.loss, self.stage), **terms}

    def step(self, batch: PackedBatch, context: StepContext) -> dict[str, Tensor]:
        """Forward, backward, clip, update."""
        rate = self.config.learning_rate[self.stage - 1]
        if self.trainer is not None:
            with backends(self.rung):
                terms = self.trainer.step(batch, context, rate)
                # The other rungs have no such term: PyTorch's own loops do not read it.
                return {name: value for name, value in terms.items() if name != GRADIENT_NORM}
        with self.autocast:
            terms = self.terms(batch, context)
        self.optimizer.zero_grad()
        terms["loss"].backward()
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip_norm)
        self.optimizer.step()
        return terms


@contextmanager
def backends(rung: Rung) -> Iterator[None]:
    """Context manager: the ops use the backends of `rung`."""
    before = os.environ.pop(ENVIRONMENT_VARIABLE, None)
    if not rung.kernels:
        os.environ[ENVIRONMENT_VARIABLE] = "reference"
    try:
        yield
    finally:
        os.environ.pop(ENVIRONMENT_VARIABLE, None)
        if before is not None:
            os.environ[ENVIRONMENT_VARIABLE] = before
