"""The forward and backward pass of a function as two CUDA graphs, and the ops that replay them in a compiled step."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

WARM_UP = 3  # calls before the recording: compilation, cuDNN's choice of algorithms, workspaces
Function = Callable[..., Sequence[Tensor]]


class Recording(Protocol):
    """What the ops need of a recording.

    wants: which inputs get a gradient; the gradients of the parameters follow theirs.
    counters: integers that each forward pass increases by 1.
    """

    wants: list[bool]
    counters: Sequence[Tensor]

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs for `inputs`."""

    def backward(self, douts: Sequence[Tensor]) -> list[Tensor]:
        """The gradients, of the inputs that want one and then of the parameters, after the last forward pass."""

    def empty_outputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Tensors like the outputs, for tracing."""

    def empty_gradients(self) -> list[Tensor]:
        """Tensors like the gradients, for tracing."""


# By name, since an op can't take objects. A part lives as long as the trainer that recorded it.
recordings: WeakValueDictionary[str, Recording] = WeakValueDictionary()


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
    inputs: tensors for the recording; those with `requires_grad` get a gradient.
    parameters: parameters that get a gradient.
    buffers: buffers that the function changes; they are restored after the recording.
    context: context in which the function runs.
    pool: memory pool of other recordings, which never run between a forward pass of this one and its backward pass.
    counters: see `Recording`; the function does not change them.
    """

    def __init__(
        self,
        function: Function,
        inputs: Sequence[Tensor],
        parameters: Sequence[nn.Parameter],
        buffers: Sequence[Tensor],
        context: AbstractContextManager,
        pool: Any = None,
        counters: Sequence[Tensor] = (),
    ) -> None:
        self.counters: Sequence[Tensor] = list(counters)
        self.function = function  # kept alive: the graphs launch its kernels
        self.pool = pool
        self.inputs = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        self.parameters = list(parameters)
        self.wanted = [x for x in self.inputs if x.requires_grad]
        self.wants = [x.requires_grad for x in self.inputs]
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
        # "thread_local": other threads make batches meanwhile, and what they allocate would end a recording.
        mode = "thread_local"
        with torch.cuda.graph(self.forward_graph, pool=self.pool, capture_error_mode=mode):
            outputs = self._forward(function, context)
        self.douts = [torch.zeros_like(x) for x in outputs]
        with torch.cuda.graph(self.backward_graph, pool=self.forward_graph.pool(), capture_error_mode=mode):
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

    def empty_outputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Tensors like the outputs."""
        return [form.empty() for form in self.output_forms]

    def empty_gradients(self) -> list[Tensor]:
        """Tensors like the gradients."""
        return [form.empty() for form in self.gradient_forms]

    def close(self) -> None:
        """Release all memory."""
        vars(self).clear()


def apart(gradients: Sequence[Tensor]) -> list[Tensor]:
    """New tensors on the memory of `gradients`, or copies of those that share memory: an op may not return aliases.

    The optimizer reads this memory before the next pass overwrites it.
    """
    storages = [x.untyped_storage().data_ptr() for x in gradients]
    sharing = Counter(storages)
    found = [torch.empty_like(x) if sharing[key] > 1 else x.view_as(x) for x, key in zip(gradients, storages)]
    # Ops return the gradients of a weight and its bias as rows of one tensor, so there are hundreds of such copies.
    copies = [(own, x) for own, x, key in zip(found, gradients, storages) if sharing[key] > 1]
    if copies:
        torch._foreach_copy_([own for own, _ in copies], [x for _, x in copies])
    return found


@torch.library.custom_op("prior_fast::replay_forward", mutates_args=())
def replay_forward(name: str, inputs: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
    recording = recordings[name]
    if recording.counters:
        torch._foreach_add_(list(recording.counters), 1)
    return recording.forward(inputs)


@replay_forward.register_fake
def _(name: str, inputs: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
    return recordings[name].empty_outputs(inputs)


@torch.library.custom_op("prior_fast::replay_backward", mutates_args=())
def _replay_backward(name: str, douts: list[Tensor]) -> list[Tensor]:
    return recordings[name].backward(douts)


@_replay_backward.register_fake
def _(name: str, douts: list[Tensor]) -> list[Tensor]:
    return recordings[name].empty_gradients()


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.name = inputs[0]


def _backward(ctx: Any, douts: list[Tensor]) -> tuple[None, list[Tensor | None], list[Tensor]]:
    gradients = iter(_replay_backward(ctx.name, list(douts)))
    return None, [next(gradients) if wants else None for wants in recordings[ctx.name].wants], list(gradients)


replay_forward.register_autograd(_backward, setup_context=_setup_context)
