"""The weights of a module's products in autocast's precision, made by a few launches instead of one for each weight.

Autocast makes each weight narrow where it is used, and each of its gradients wide again. A ResNet-50, a BERT of 12
layers and a sentence decoder have 200 such weights. With the project's own optimizer kernel the copies are not made in
a step at all: the update writes them, and takes their gradients (`NarrowCopies`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prior_fast.model.joined_linear import JoinedLinear

# Layers that use their weight in nothing but a product or a convolution, which is narrow under autocast. Subclasses
# may compute with the weight before, so they are not meant.
PRODUCTS = (nn.Linear, JoinedLinear, nn.Conv2d)


def product_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """The trained weights of the layers of `module` that are `PRODUCTS`, by their names in `module`."""
    return {
        f"{name}.weight" if name else "weight": cast(nn.Parameter, layer.weight)
        for name, layer in module.named_modules()
        if type(layer) in PRODUCTS and cast(nn.Parameter, layer.weight).requires_grad
    }


def narrowed(weights: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The weights in `dtype`; their gradients arrive in the dtype of the weights."""
    return _Narrowed.apply(dtype, *weights) if weights else ()


class _Narrowed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.dtypes = [x.dtype for x in weights]
        narrow = [torch.empty_like(x, dtype=dtype) for x in weights]
        torch._foreach_copy_(narrow, list(weights))
        return tuple(narrow)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *dnarrow: Tensor) -> tuple[Tensor | None, ...]:
        # Strides of the gradients, not of the weights: the copies of all of them are few launches only where source and
        # target have the same strides.
        dweights = [torch.empty_like(x, dtype=dtype) for x, dtype in zip(dnarrow, ctx.dtypes, strict=True)]
        torch._foreach_copy_(dweights, list(dnarrow))
        return None, *dweights


class NarrowCopies:
    """Copies of weights that products use in place of the weights: they get the gradients, in their own dtype.

    Attributes:
        by_weight: the copy of each weight, a leaf with the weight's strides.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.by_weight: dict[nn.Parameter, nn.Parameter] = {}
        self._versions: list[int] = []

    def of(self, weights: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """The copies of these weights by the same names."""
        for weight in weights.values():
            if weight not in self.by_weight:
                copy = torch.empty_like(weight, dtype=self.dtype, memory_format=torch.preserve_format)
                self.by_weight[weight] = nn.Parameter(copy.copy_(weight.detach()))
        self.current()
        return {name: self.by_weight[weight] for name, weight in weights.items()}

    def current(self) -> None:
        """Say that the copies are those of the weights as they are now."""
        self._versions = [weight._version for weight in self.by_weight]

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights again that something else than the optimizer has changed in place."""
        stale = [pair for pair, seen in zip(self.by_weight.items(), self._versions) if pair[0]._version != seen]
        if stale:
            torch._foreach_copy_([copy for _, copy in stale], [weight for weight, _ in stale])
            self.current()


class WithWeights(nn.Module):
    """Runs the plain forward pass of `module` with other tensors in the place of some weights."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.names = [f"module.{name}" for name in names]

    def forward(self, *inputs: Any) -> Any:
        # Not the module's own method: that may have been replaced by the one that replays a recording.
        return type(self.module).forward(self.module, *inputs)

    def run(self, weights: Sequence[Tensor], *inputs: Any) -> Any:
        """The module's results for `inputs` with `weights`, in the order of the names."""
        return functional_call(self, dict(zip(self.names, weights, strict=True)), inputs)
