"""Counts the calls in the code that torch.compile generates for the head; each is a launch on a GPU."""

import re

import torch
from torch._inductor.utils import run_and_get_code

from prior_fast.batch import PackedBatch
from prior_fast.measure.ladder.count import frozen
from prior_fast.measure.ladder.rungs import RungStep
from prior_fast.training.stages import StepContext
from prior_fast.training.step import compile_loss

# Calls of generated kernels, for GPUs and CPUs, and of ops that the compiler keeps. Calls are indented, definitions are
# not.
_CALL = re.compile(
    r"^\s+(?:[\w, ]+ = )?(?:triton_\w+\.run|cpp_fused\w*|(?:extern_kernels|aten|torch\.ops)\.[\w.]+)\(", re.MULTILINE
)


def compiled_head_calls(step: RungStep, batch: PackedBatch, context: StepContext) -> int:
    """Number of calls in the head, forward and backward, compiled separately: encoders and decoders are constants.

    step: of a rung that uses the trainer's own loss, compiled or not. On a CPU this takes minutes.
    """
    assert step.trainer is not None
    trainer = step.trainer
    before = trainer.compiled, trainer.loss
    plain = getattr(trainer.loss, "_orig_mod", trainer.loss)
    trainer.compiled, trainer.loss = False, plain
    with frozen(step, batch, context):
        trainer.compiled, trainer.loss = True, compile_loss(plain)

        def differentiate() -> None:
            with step.autocast:
                loss = step.terms(batch, context)["loss"]
            loss.backward()

        _, sources = run_and_get_code(differentiate)
    trainer.compiled, trainer.loss = before
    step.model.zero_grad()
    torch._dynamo.reset()
    return sum(calls_of(source) for source in sources)


def calls_of(source: str) -> int:
    """Number of calls in generated code."""
    return len(_CALL.findall(source))
