"""Collects the convolutions of a training step from the model, without computing anything."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from prior_fast.config import RunConfig
from prior_fast.measure.ladder.batches import VOCABULARY
from prior_fast.model.prior import PRIORModel
from prior_fast.training.step import train_only

SIDE = 224  # pixels of an image's side
FORWARD, DATA, WEIGHT = "forward", "data gradient", "weight gradient"


@dataclass(frozen=True)
class Convolution:
    """A call of aten.convolution: its shapes and other arguments, without data.

    Attributes:
        input: [B, in, h, w].
        weight: [out, in / groups, kh, kw]; if transposed, [in, out / groups, kh, kw].
        data_gradient: whether the input needs a gradient; images do not.
    """

    input: tuple[int, ...]
    weight: tuple[int, ...]
    has_bias: bool
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int
    data_gradient: bool

    @property
    def settings(self) -> tuple[Any, ...]:
        """The arguments of aten.convolution after its tensors."""
        return self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups

    @property
    def output(self) -> tuple[int, ...]:
        """[B, out, h, w]."""
        x, weight = (torch.empty(shape, device="meta") for shape in (self.input, self.weight))
        return tuple(torch.ops.aten.convolution(x, weight, None, *self.settings).shape)

    @property
    def operations(self) -> int:
        """Additions and multiplications of each direction, operations on padding included."""
        pixels = self.input if self.transposed else self.output
        return 2 * math.prod(self.weight) * pixels[0] * math.prod(pixels[2:])

    def least_bytes(self, direction: str, itemsize: int) -> int:
        """Bytes of input, weight and output: each direction reads two of them and writes the third."""
        numbers = sum(math.prod(shape) for shape in (self.input, self.weight, self.output))
        return itemsize * (numbers + (self.output[1] if self.has_bias and direction == FORWARD else 0))

    @property
    def directions(self) -> list[str]:
        """The directions of a training step."""
        return [name for name in (FORWARD, DATA, WEIGHT) if name != DATA or self.data_gradient]

    @property
    def name(self) -> str:
        """Kernel, stride, channels and sizes in words, without the batch size."""
        (_, before, *size), (_, after, *size_after) = self.input, self.output
        kind = "transposed " if self.transposed else ""
        stride = "" if self.stride == (1, 1) else f" /{self.stride[0]}"
        sizes = " -> ".join(dict.fromkeys("x".join(map(str, s)) for s in (size, size_after)))
        return f"{kind}{'x'.join(map(str, self.weight[2:]))}{stride}, {before} -> {after} channels, {sizes}"


Found = dict[Convolution, list[str]]
Function = Callable[..., Tensor]  # takes a convolution, x, weight, the output's gradient, and a bias if there is one


def forward(conv: Convolution, x: Tensor, weight: Tensor, dout: Tensor, bias: Tensor | None = None) -> Tensor:
    """The output [B, out, h, w]."""
    return torch.ops.aten.convolution(x, weight, bias, *conv.settings)


def data_gradient(conv: Convolution, x: Tensor, weight: Tensor, dout: Tensor, bias: Tensor | None = None) -> Tensor:
    """The gradient of the input."""
    return torch.ops.aten.convolution_backward(dout, x, weight, None, *conv.settings, [True, False, False])[0]


def weight_gradient(conv: Convolution, x: Tensor, weight: Tensor, dout: Tensor, bias: Tensor | None = None) -> Tensor:
    """The gradient of the weight."""
    return torch.ops.aten.convolution_backward(dout, x, weight, None, *conv.settings, [False, True, False])[1]


DIRECTIONS: Mapping[str, Function] = {FORWARD: forward, DATA: data_gradient, WEIGHT: weight_gradient}


class Recorder(TorchDispatchMode):
    """Records the convolutions that run under it, each with the name of its `nn.Conv2d`.

    compiled: record the form that a compiled step on a GPU uses, where it differs.
    """

    def __init__(self, model: nn.Module, compiled: bool) -> None:
        super().__init__()
        self.calls: list[tuple[str, Convolution]] = []
        self._module, self._data_gradient, self._begin = "elsewhere", True, 0
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(partial(self._enter, name))
                if compiled and hasattr(module, "compiled_forward"):
                    module.register_forward_hook(self._compiled)

    def _enter(self, name: str, module: nn.Module, args: tuple[Tensor]) -> None:
        self._module, self._data_gradient, self._begin = name, args[0].requires_grad, len(self.calls)

    def _compiled(self, module: nn.Conv2d, args: tuple[Tensor], output: Tensor) -> Tensor:
        del self.calls[self._begin :]
        return module.compiled_forward(args[0])  # type: ignore[operator]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
            call = Convolution(
                input=tuple(x.shape),
                weight=tuple(weight.shape),
                has_bias=bias is not None,
                stride=tuple(stride),
                padding=tuple(padding),
                dilation=tuple(dilation),
                transposed=transposed,
                output_padding=tuple(output_padding),
                groups=groups,
                data_gradient=self._data_gradient,
            )
            self.calls.append((self._module, call))
        return func(*args, **(kwargs or {}))


def collect(config: RunConfig, stage: int, compiled: bool) -> Found:
    """The convolutions of a step, each with the modules that call it; nothing is computed or allocated.

    compiled: see `Recorder`.
    """
    with torch.device("meta"):
        model = PRIORModel(config.model, VOCABULARY).train()
        images = torch.empty(config.batch_size, 1, SIDE, SIDE)
    train_only(model, stage)
    recorder = Recorder(model, compiled)
    with recorder:
        patches = model.encode_images(images).patches
        if config.model.reconstructs(stage):
            model.reconstruct_images(patches, patches)  # the text's context has the same shape
    found: Found = {}
    for module, call in recorder.calls:
        found.setdefault(call, []).append(module)
    return found
