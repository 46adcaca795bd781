"""Counts a step on a CPU without torch.compile: every call below autograd, forward and backward.

A call reads its inputs from memory and writes its outputs. Parts are told by the names of the calls, as in a profile.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prior_fast.measure.predict.compiled import FREE, own_product
from prior_fast.measure.predict.parts import (
    ATTENTION,
    CONVOLUTIONS,
    LAYER_NORMS,
    NORMS,
    OPTIMIZER,
    OWN,
    PRODUCTS,
    REST,
    Call,
)
from prior_fast.measure.predict.products import convolution_of, gemm_of, name_of, size

# The part of a call by its name without its namespace.
OPS: dict[str, tuple[str, ...]] = {
    CONVOLUTIONS: ("convolution", "_convolution", "mkldnn_convolution", "convolution_backward"),
    PRODUCTS: ("mm", "addmm", "bmm", "baddbmm", "mv", "dot"),
    NORMS: (
        *("norm_moments", "norm_scales", "norm_apply", "norm_gradient_sums", "norm_gradient", "native_batch_norm"),
        *("native_batch_norm_backward", "relu", "relu_", "threshold_backward", "max_pool2d_with_indices"),
        *("max_pool2d_with_indices_backward", "avg_pool2d", "avg_pool2d_backward"),
    ),
    LAYER_NORMS: (
        *("native_layer_norm", "native_layer_norm_backward", "gelu", "gelu_backward", "native_dropout"),
        *("native_dropout_backward", "bernoulli_"),
    ),
    ATTENTION: ("_softmax", "_softmax_backward_data", "report_attention", "report_attention_backward"),
    OPTIMIZER: ("_fused_adam_", "_fused_adamw_"),
}
_PARTS = {name: part for part, names in OPS.items() for name in names}
# Kinds of element-wise arithmetic that take longer than the reading and writing of their numbers.
SLOW = {"gelu": "gelu", "gelu_backward": "gelu", "bernoulli_": "random", "native_dropout": "random"}


def part_of_op(name: str, namespace: str) -> str:
    """The part of a call such as "addmm" of "aten"."""
    if name in _PARTS:
        return _PARTS[name]
    return OWN if namespace == "prior_fast" else REST


class EagerStep(TorchDispatchMode):
    """Collects the calls of a step.

    squared_tokens: sum of the squares of the reports' tokens, whose values the step does not have.
    """

    def __init__(self, squared_tokens: int) -> None:
        super().__init__()
        self.squared_tokens = squared_tokens
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not func.is_view and name not in FREE and func.namespace in ("aten", "prior_fast"):
            self.calls += self._calls(name, func.namespace, args, result)
        return result

    def _calls(self, name: str, namespace: str, args: Any, out: Any) -> list[Call]:
        part = part_of_op(name, namespace)
        tensors = [x for x in args if isinstance(x, Tensor)]
        dtype = name_of(tensors[0].dtype if tensors else torch.float32)
        if name == "convolution":
            work = convolution_of(args[0], args[1], out, args[6])
            moved = work.least_bytes(args[0].element_size())
            narrow = min(work.inputs, work.outputs)
            return [Call(part, "convolution", name, dtype, work.operations, moved, narrowest=narrow)]
        if name == "convolution_backward":
            dout, x, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[10]
            work = convolution_of(x, weight, dout, transposed)
            moved, narrow = work.least_bytes(x.element_size()), min(work.inputs, work.outputs)
            return [
                Call(part, kind, name, dtype, work.operations, moved, narrowest=narrow)
                for kind, asked in zip(("convolution", "convolution"), wanted[:2])
                if asked
            ]
        moved = size(args, out)
        if part == PRODUCTS and name in ("mm", "bmm", "addmm", "baddbmm"):
            a, b = tensors[-2:]
            return [Call(part, "product", name, dtype, gemm_of(a, b).operations, moved)]
        if name.startswith("report_attention"):
            heads, width = tensors[0].shape[1:]
            products = 2 if name == "report_attention" else 5
            weights = heads * self.squared_tokens
            return [Call(part, "attention", name, dtype, products * 2 * width * weights, moved, numbers=weights)]
        operations = 2 * own_product(name, args) if part == OWN else 0
        numbers = max((x.numel() for x in tensors), default=0)
        return [Call(part, SLOW.get(name, "element-wise"), name, dtype, operations, moved, numbers=numbers)]
