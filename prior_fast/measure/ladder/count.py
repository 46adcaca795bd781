"""Counts a step's op calls, in total and in the head, and how often the host reads values."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from prior_fast.batch import PackedBatch
from prior_fast.measure.ladder.rungs import RungStep
from prior_fast.ops.common.checks import ENVIRONMENT_VARIABLE
from prior_fast.training.stages import StepContext

# Ops that make the host wait for their result or its size.
READS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim")
# Methods that move a whole tensor to the host. They do not reach the dispatcher if the tensor is already there.
MOVES = (Tensor.cpu, Tensor.tolist)
NOT_HEAD = ("image_encoder", "text_encoder", "sentence_decoder", "image_decoder")


@dataclass(frozen=True)
class Counts:
    """Counts of one step.

    Attributes:
        ops: op calls below autograd in forward, backward, clipping and update.
        head_ops: op calls of forward and backward without the encoders and decoders.
        head_launches: head ops that are not views of a tensor, and so have work to do.
        reads: how often forward and backward wait for a value; on a CPU, how often they would on a GPU.
    """

    ops: int
    head_ops: int
    head_launches: int
    reads: int


class OpCounter(TorchDispatchMode):
    """Counts the calls that reach the dispatcher below autograd.

    An op of this package counts as one call, plus one for each op that it calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ops = 0
        self.views = 0
        self.reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ops += 1
        self.views += func.is_view
        self.reads += _reads(func, args, kwargs or {})
        inner = torch._library.custom_ops.OPDEFS.get(func.name().removesuffix(".default"))
        if inner is None:
            return func(*args, **(kwargs or {}))
        with self:
            return inner._init_fn(*args, **(kwargs or {}))


def _reads(func: Any, args: Any, kwargs: Any) -> bool:
    name = func.overloadpacket.__name__
    if name in READS:
        return True
    if name in ("index", "index_put", "index_put_"):
        return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    if name == "_to_copy":
        return args[0].device.type != "cpu" and torch.device(kwargs.get("device") or args[0].device).type == "cpu"
    return name == "copy_" and args[0].device.type == "cpu" and args[1].device.type != "cpu"


class MoveCounter(TorchFunctionMode):
    """Counts the moves to the host that do not reach the dispatcher on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        to_cpu = func is Tensor.to and any(str(x) == "cpu" for x in (*args[1:], *(kwargs or {}).values()))
        self.moves += func in MOVES or to_cpu
        return func(*args, **(kwargs or {}))


def count(step: RungStep, batch: PackedBatch, context: StepContext) -> Counts:
    """Run a whole step, forward and backward, and the head alone, and count; parameters and statistics are updated.

    A compiled rung is counted without torch.compile, since compiled code bypasses the dispatcher.
    """
    step.prepare(batch)

    def differentiate() -> None:
        with step.autocast:
            terms = step.terms(batch, context)
        terms["loss"].backward()

    with _without_value_checks(), torch.compiler.set_stance("force_eager"):
        with OpCounter() as whole:
            step.step(batch, context)
        with OpCounter() as both, MoveCounter() as moves:
            differentiate()
        with frozen(step, batch, context), OpCounter() as head:
            differentiate()
    step.model.zero_grad()
    on_host = batch.images.device.type == "cpu"
    return Counts(whole.ops, head.ops, head.ops - head.views, both.reads + (moves.moves if on_host else 0))


@contextmanager
def _without_value_checks() -> Iterator[None]:
    """Context manager: turns off the ops' checks of values, which read values on CPUs only."""
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    os.environ[ENVIRONMENT_VARIABLE] = "0"
    try:
        yield
    finally:
        del os.environ[ENVIRONMENT_VARIABLE]
        if before is not None:
            os.environ[ENVIRONMENT_VARIABLE] = before


@contextmanager
def frozen(step: RungStep, batch: PackedBatch, context: StepContext) -> Iterator[None]:
    """Context manager: encoders and decoders return outputs recorded once, as leaves that require a gradient."""
    modules = {name: step.model.get_submodule(name) for name in NOT_HEAD}
    outputs: dict[str, Any] = {}

    def record(name: str) -> Callable[..., None]:
        return lambda module, args, output: outputs.update({name: output})

    hooks = [module.register_forward_hook(record(name)) for name, module in modules.items()]
    try:
        with torch.no_grad(), step.autocast:
            step.terms(batch, context)
    finally:
        for hook in hooks:
            hook.remove()
    kept = [module for name, module in modules.items() if name in outputs]
    try:
        for name, output in outputs.items():
            _return_always(modules[name], output)
        yield
    finally:
        for module in kept:
            module.__dict__.pop("forward", None)


def _return_always(module: nn.Module, output: Any) -> None:
    leaves = tuple(x.detach().requires_grad_() for x in output) if isinstance(output, tuple) else None
    result = leaves or output.detach().requires_grad_()
    module.forward = lambda *args, **kwargs: result
