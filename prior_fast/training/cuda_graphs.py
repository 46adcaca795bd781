"""CUDA graphs of the parts of a compiled step whose sizes never change; the host launches each graph by one call.

The numbers of tokens and sentences change from batch to batch, so a whole step can't be recorded. Images always have
the same size. The image encoder and the image decoder are compiled separately and recorded once; in the graph of the
step they are then opaque ops.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, count
from types import MethodType
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from prior_fast.batch import PackedBatch
from prior_fast.model.image_encoder import MAP_SIZE
from prior_fast.model.prior import PRIORModel

WARM_UP = 3  # calls before the recording: compilation, cuDNN's choice of algorithms, workspaces
Function = Callable[..., Sequence[Tensor]]

# By name, since an op can't take objects. A part lives as long as the trainer that recorded it.
_recorded: WeakValueDictionary[str, "Recorded"] = WeakValueDictionary()


@dataclass
class Form:
    """Size, strides, dtype and device of a tensor."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, x: Tensor) -> "Form":
        return cls(tuple(x.shape), x.stride(), x.dtype, x.device)

    def empty(self) -> Tensor:
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=self.device)


class Recorded:
    """The recorded forward and backward pass of a function, with their own memory for inputs and outputs.

    A backward pass belongs to the forward pass before it. Results are valid until the next pass of the same kind.

    function: inputs -> outputs, of fixed sizes, without reads by the host.
    inputs: float tensors for the recording; those with `requires_grad` get a gradient.
    parameters: parameters that get a gradient.
    buffers: buffers that the function changes; they are restored after the recording.
    context: context in which the function runs.
    """

    def __init__(
        self,
        function: Function,
        inputs: Sequence[Tensor],
        parameters: Sequence[nn.Parameter],
        buffers: Sequence[Tensor],
        context: AbstractContextManager,
    ) -> None:
        self.function = function  # kept alive: the graphs launch its kernels
        self.inputs = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        self.parameters = list(parameters)
        self.wanted = [x for x in self.inputs if x.requires_grad]
        before = [x.clone() for x in buffers]
        self._record(function, context)
        with torch.no_grad():
            for x, value in zip(buffers, before, strict=True):
                x.copy_(value)
        self.output_forms = [Form.of(x) for x in self.outputs]
        self.gradient_forms = [Form.of(x) for x in apart(self.gradients)]

    def _record(self, function: Function, context: AbstractContextManager) -> None:
        stream: Any = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                outputs = self._forward(function, context)
                # Not zeros: cuDNN times its algorithms on these values, and multiplying zeros is faster.
                douts = [torch.randn_like(x) for x in outputs]
                torch.autograd.grad(outputs, [*self.wanted, *self.parameters], douts)
                del outputs
        torch.cuda.current_stream().wait_stream(stream)
        self.forward_graph, self.backward_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.forward_graph):
            outputs = self._forward(function, context)
        self.douts = [torch.zeros_like(x) for x in outputs]
        with torch.cuda.graph(self.backward_graph, pool=self.forward_graph.pool()):
            self.gradients = torch.autograd.grad(outputs, [*self.wanted, *self.parameters], self.douts)
        self.outputs = [x.detach() for x in outputs]

    def _forward(self, function: Function, context: AbstractContextManager) -> Sequence[Tensor]:
        with torch.enable_grad(), context:
            return function(*self.inputs)

    @torch.no_grad()
    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Replay the forward pass; the outputs are copies."""
        torch._foreach_copy_(self.inputs, list(inputs))
        self.forward_graph.replay()
        return [x.clone() for x in self.outputs]

    @torch.no_grad()
    def backward(self, douts: Sequence[Tensor]) -> list[Tensor]:
        """Replay the backward pass; returns gradients of inputs with `requires_grad`, then of the parameters."""
        torch._foreach_copy_(self.douts, list(douts))
        self.backward_graph.replay()
        return apart(self.gradients)

    def close(self) -> None:
        """Release all memory."""
        vars(self).clear()


def apart(gradients: Sequence[Tensor]) -> list[Tensor]:
    """New tensors on the memory of `gradients`, or copies of those that share memory: an op may not return aliases.

    The optimizer reads this memory before the next pass overwrites it.
    """
    sharing = Counter(x.untyped_storage().data_ptr() for x in gradients)
    return [x.clone() if sharing[x.untyped_storage().data_ptr()] > 1 else x.view_as(x) for x in gradients]


@torch.library.custom_op("prior_fast::replay_forward", mutates_args=())
def _replay_forward(name: str, inputs: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
    return _recorded[name].forward(inputs)


@_replay_forward.register_fake
def _(name: str, inputs: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
    return [form.empty() for form in _recorded[name].output_forms]


@torch.library.custom_op("prior_fast::replay_backward", mutates_args=())
def _replay_backward(name: str, douts: list[Tensor]) -> list[Tensor]:
    return _recorded[name].backward(douts)


@_replay_backward.register_fake
def _(name: str, douts: list[Tensor]) -> list[Tensor]:
    return [form.empty() for form in _recorded[name].gradient_forms]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.name = inputs[0]


def _backward(ctx: Any, douts: list[Tensor]) -> tuple[None, list[Tensor | None], list[Tensor]]:
    gradients = iter(_replay_backward(ctx.name, list(douts)))
    wanted = [x.requires_grad for x in _recorded[ctx.name].inputs]
    return None, [next(gradients) if wants else None for wants in wanted], list(gradients)


_replay_forward.register_autograd(_backward, setup_context=_setup_context)


def image_parts(model: PRIORModel, stage: int, batch: PackedBatch, device: torch.device) -> "list[Replayed]":
    """Record the parts that `stage` trains of the image encoder and decoder, for batches of the size of `batch`.

    Call it within autocast if the step runs within autocast. It restores the random generators: the noise of a step
    depends only on its number, and not on whether it is the first step of a process.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return _image_parts(model, stage, batch, device)


def _image_parts(model: PRIORModel, stage: int, batch: PackedBatch, device: torch.device) -> "list[Replayed]":
    half = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if half else next(model.image_decoder.parameters()).dtype
    # No cache: low-precision weights in it would become part of the recording, and outdated after the first step.
    context = torch.autocast(device.type, dtype, enabled=half, cache_enabled=False)
    images = torch.randn_like(batch.images, memory_format=torch.channels_last)
    parts = [Replayed(f"image_encoder_{stage}", model.image_encoder, [images], context)]
    if model.config.reconstructs(stage):
        # In the dtype and layout that the first convolution takes.
        shape = len(batch), model.config.embed_dim, MAP_SIZE, MAP_SIZE
        maps = [torch.randn(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)] * 2
        parts.append(Replayed("image_decoder", model.image_decoder, [x.requires_grad_() for x in maps], context))
    return parts


class Replayed:
    """Makes calls of `module` in a compiled step replay its recording. Other calls, or other sizes, run the module.

    name: name of the recording, which is part of the step's graph; a number is added if the name is taken.
    """

    def __init__(self, name: str, module: nn.Module, inputs: Sequence[Tensor], context: AbstractContextManager) -> None:
        name = next(own for own in chain([name], (f"{name}_{n}" for n in count(2))) if own not in _recorded)
        plain = type(module).forward
        parameters = [p for p in module.parameters() if p.requires_grad]

        def function(*own: Tensor) -> Sequence[Tensor]:
            found = plain(module, *own)
            return (found,) if isinstance(found, Tensor) else found

        compiled = torch.compile(function, dynamic=False)
        self.name, self.module = name, module
        self.recorded = Recorded(compiled, inputs, parameters, [*module.buffers()], context)
        _recorded[name] = self.recorded
        sizes = [x.shape for x in inputs]
        dtypes = [x.dtype for x in inputs]
        single = len(self.recorded.outputs) == 1

        def forward(this: nn.Module, *own: Tensor) -> Any:
            recorded = torch.is_grad_enabled() and this.training and [x.shape for x in own] == sizes
            if not (recorded and this is module and torch.compiler.is_compiling()):
                return plain(this, *own)
            narrowed = [x.to(dtype) for x, dtype in zip(own, dtypes)]
            outputs = _replay_forward(name, narrowed, [p for p in module.parameters() if p.requires_grad])
            return outputs[0] if single else tuple(outputs)

        # Copying the module binds this method to the copy, which was not recorded: hence `this is module` above.
        module.forward = MethodType(forward, module)

    def close(self) -> None:
        """Restore the module's own forward pass and release the recording's memory."""
        vars(self.module).pop("forward", None)
        _recorded.pop(self.name, None)
        self.recorded.close()
