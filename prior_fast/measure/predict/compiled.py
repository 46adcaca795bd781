"""Counts a compiled step on a GPU from its forward pass, which runs on tensors without data.

Each product, convolution and op of this package is found below autograd; its backward pass follows from its formula.
Element-wise work is counted as the passes that torch.compile's kernels make over a layer's activations:

- batch norm: forward one read for the statistics, a read and a write; backward the output's gradient and the input are
  read for the sums, both are read again, and the input's gradient is written. That is 8 passes. The ReLU is in them.
- a residual addition: one read forward; backward both gradients and the ReLU's mask are read, and their sum is written.
- GELU: a read and a write forward, two reads and a write backward; the bias is added by the product.
- the sum of a bias' gradient: one read of the product's gradient.

Other calls are small kernels, forward and, where an input has a gradient, backward.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prior_fast.measure.predict.parts import (
    ATTENTION,
    CONVOLUTIONS,
    LAYER_NORMS,
    NORMS,
    OWN,
    PRODUCTS,
    REST,
    Call,
)
from prior_fast.measure.predict.products import (
    DATA,
    FORWARD,
    WEIGHT,
    convolution_of,
    gemm_of,
    name_of,
    size,
)

BACKWARD = "backward"
# Calls without a kernel: they make memory, or another view of it.
FREE = frozenset({"empty", "empty_strided", "empty_like", "new_empty", "detach", "alias", "device", "_unsafe_view"})
# Second launches of a batch norm: the sums of partial sums and the running statistics.
NORM_SUMS = 3


class CompiledStep(TorchDispatchMode):
    """Collects the calls of a compiled step from its forward pass.

    squared_tokens: sum of the squares of the reports' tokens, whose values the pass does not have.
    tokens: rows of the text encoder.
    """

    def __init__(self, tokens: int, squared_tokens: int) -> None:
        super().__init__()
        self.tokens, self.squared_tokens = tokens, squared_tokens
        self.calls: list[Call] = []
        self._counts: dict[str, Callable[..., None]] = {
            "convolution": self._convolution,
            "mm": self._product,
            "bmm": self._product,
            "addmm": self._product_with_bias,
            "native_batch_norm": self._batch_norm,
            "add_": self._residual,
            "constant_pad_nd": self._pad,
            "max_pool2d_with_indices": self._max_pool,
            "gelu": self._gelu,
            "native_layer_norm": self._layer_norm,
            "native_dropout": self._dropout,
            "embedding": self._embedding,
        }

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.namespace == "prior_fast":
            self._own(name, args, result)
        elif not func.is_view and name not in FREE and func.namespace == "aten":
            self._counts.get(name, self._small)(name, args, result)
        return result

    def add(self, part: str, kind: str, name: str, dtype: torch.dtype | str, **work: Any) -> None:
        """Add one call."""
        own = dtype if isinstance(dtype, str) else name_of(dtype)
        self.calls.append(Call(part, kind, name, own, **work))

    def fuse(self, begin: int, forward: int, backward: int) -> None:
        """Replace the small calls since call `begin` by a kernel forward and one backward, of so many bytes."""
        kept = [call for call in self.calls[begin:] if call.part != REST]
        self.calls[begin:] = kept
        if kept:
            dtype = kept[0].dtype
            self.add(REST, "element-wise", "weights or result of a convolution rearranged", dtype, bytes=forward)
            self.add(REST, "element-wise", "their gradient", dtype, bytes=backward)

    def _convolution(self, op: str, args: Any, out: Tensor) -> None:
        x, weight, transposed = args[0], args[1], args[6]
        work = convolution_of(x, weight, out, transposed)
        kind = "transposed " if transposed else ""
        title = f"{kind}{'x'.join(map(str, weight.shape[2:]))}, {work.inputs} -> {work.outputs}, {x.shape[-1]}"
        for direction, wanted in ((FORWARD, True), (DATA, x.requires_grad), (WEIGHT, weight.requires_grad)):
            if wanted:
                self.add(
                    *(CONVOLUTIONS, "convolution", f"{title}: {direction}", x.dtype),
                    operations=work.operations,
                    bytes=work.least_bytes(x.element_size()),
                    narrowest=min(work.inputs, work.outputs),
                )

    def _product(self, op: str, args: Any, out: Tensor) -> None:
        a, b = args[-2:]
        work = gemm_of(a, b)
        title = f"{work.count} x [{work.rows}, {work.inner}] [{work.inner}, {work.columns}]"
        for direction, wanted in ((FORWARD, True), (DATA, a.requires_grad), (WEIGHT, b.requires_grad)):
            if wanted:
                self.add(
                    *(PRODUCTS, "product", f"{title}: {direction}", a.dtype),
                    operations=work.operations,
                    bytes=work.least_bytes(a.element_size()),
                )

    def _product_with_bias(self, op: str, args: Any, out: Tensor) -> None:
        bias, a, b = args[:3]
        self._product(op, (a, b), out)
        if bias.requires_grad:
            self.add(REST, "reduction", "sum of a bias' gradient", out.dtype, bytes=size(out))

    def _batch_norm(self, op: str, args: Any, out: Any) -> None:
        x = args[0]
        # Channels that were padded for a convolution are read too: they are in the same lines of memory.
        own, stored = size(out[0]), stored_bytes(x)
        for name, moved in (
            ("statistics", stored),
            ("normalization", stored + own),
            ("sums of the gradient", stored + own),
            ("gradient", 2 * stored + own),
        ):
            self.add(NORMS, "element-wise", f"batch norm, {x.shape[1]} channels: {name}", x.dtype, bytes=moved)
        self.add(NORMS, "element-wise", "batch norm: sums of partial sums", x.dtype, launches=NORM_SUMS)

    def _residual(self, op: str, args: Any, out: Tensor) -> None:
        if out.dim() == 4:
            # It is part of the normalization's launch; the sum of the gradients is a launch of its own.
            self.add(NORMS, "element-wise", "residual: read", out.dtype, bytes=size(out), launches=0)
            self.add(NORMS, "element-wise", "residual: gradients", out.dtype, bytes=4 * size(out))
        else:
            self._small(op, args, out)

    def _pad(self, op: str, args: Any, out: Tensor) -> None:
        if args[0].dim() == 4 and out.shape[:-1] == args[0].shape[:-1] and args[0].requires_grad:
            # Channels: the zeros are written with the numbers before them.
            more = size(out) - size(args[0])
            self.add(NORMS, "element-wise", "padding of channels", out.dtype, bytes=2 * more, launches=0)
        else:
            self._small(op, args, out)

    def _max_pool(self, op: str, args: Any, out: Any) -> None:
        x, (maxima, _) = args[0], out
        place = maxima.numel()  # a byte each
        self.add(NORMS, "element-wise", "max-pooling", x.dtype, bytes=size(x, maxima) + place)
        self.add(NORMS, "element-wise", "max-pooling: gradient", x.dtype, bytes=size(x, maxima) + place)

    def _gelu(self, op: str, args: Any, out: Tensor) -> None:
        self.add(LAYER_NORMS, "element-wise", "GELU", out.dtype, bytes=2 * size(out))
        self.add(LAYER_NORMS, "element-wise", "GELU: gradient", out.dtype, bytes=3 * size(out))

    def _layer_norm(self, op: str, args: Any, out: Any) -> None:
        x = args[0]
        self.add(LAYER_NORMS, "element-wise", "layer norm", x.dtype, bytes=2 * size(x))
        self.add(LAYER_NORMS, "element-wise", "layer norm: gradient", x.dtype, bytes=3 * size(x), launches=2)

    def _dropout(self, op: str, args: Any, out: Any) -> None:
        # In the launches of the layer norm; only its mask takes bytes.
        self.add(LAYER_NORMS, "element-wise", "dropout's mask", "float32", bytes=2 * size(out[1]), launches=0)

    def _embedding(self, op: str, args: Any, out: Tensor) -> None:
        table = args[0]
        self.add(REST, "element-wise", "embedding", table.dtype, bytes=2 * size(out))
        if table.requires_grad:
            # Zeros for the whole table, and a row added for each index.
            moved = size(table) + 3 * size(out)
            self.add(REST, "element-wise", "embedding: gradient", table.dtype, bytes=moved, launches=3)

    def _small(self, op: str, args: Any, out: Any) -> None:
        moved = size(args, out)
        dtype = next((x.dtype for x in args if isinstance(x, Tensor)), torch.float32)
        if op.startswith("relu") and isinstance(out, Tensor) and out.dim() == 4:
            return
        differentiated = any(isinstance(x, Tensor) and x.requires_grad for x in args)
        self.add(REST, "small", op, dtype, bytes=moved)
        if differentiated:
            self.add(REST, "small", f"{op}: gradient", dtype, bytes=moved)

    def _own(self, op: str, args: Any, out: Any) -> None:
        moved = size(args, out)
        if op == "dropout_add_layer_norm":
            self._dropout_add_layer_norm(args, out)
        elif op.startswith("packed_"):
            product = self._attention_product(args)
            q = args[0]
            self.add(ATTENTION, "attention", op, q.dtype, operations=2 * product, bytes=moved)
            # Scores again, and the gradients of weights, queries, keys and values.
            work = {"operations": 5 * product, "bytes": 2 * moved}
            self.add(ATTENTION, "attention gradient", f"{op}: gradient", q.dtype, **work)
        else:
            product = own_product(op, args)
            dtype = args[0].dtype if isinstance(args[0], Tensor) and args[0].is_floating_point() else torch.float32
            self.add(OWN, "own", op, dtype, operations=2 * product, bytes=moved)
            if isinstance(args[0], Tensor) and args[0].requires_grad:
                work = {"operations": (5 if op == "sigmoid_attention" else 4) * product, "bytes": 2 * moved}
                self.add(OWN, "own", f"{op}: gradient", dtype, **work)

    def _dropout_add_layer_norm(self, args: Any, out: Any) -> None:
        x, residual = args[:2]
        y, low, _ = out
        forward, backward = size(x, residual, y, low), size(y, low, x, residual, x, residual)
        self.add(LAYER_NORMS, "element-wise", "dropout_add_layer_norm", x.dtype, bytes=forward)
        # The sums for the vectors' gradients are added up by a second launch.
        name = "dropout_add_layer_norm: gradient"
        self.add(LAYER_NORMS, "element-wise", name, x.dtype, bytes=backward, launches=2)

    def _attention_product(self, args: Any) -> int:
        """Operations of one product of queries and keys, within all segments."""
        q, heads, width = args[0], args[0].shape[-2], args[0].shape[-1]
        if q.dim() == 4:
            segments = args[1].shape[0] - 1
            pairs = self.squared_tokens if len(q) == self.tokens else len(q) ** 2 // segments
        else:
            # Of the two lengths of a segment one is equal in all segments.
            pairs = len(q) * len(args[1]) // (args[3].shape[0] - 1)
        return 2 * heads * width * pairs


def stored_bytes(x: Tensor) -> int:
    """Bytes of the lines of memory that hold x: with channels innermost, also those of channels that are left out."""
    if x.dim() == 4 and x.stride(1) == 1 and x.shape[3] > 1:
        return math.prod((x.shape[0], *x.shape[2:], x.stride(3))) * x.element_size()
    return size(x)


def own_product(op: str, args: Any) -> int:
    """Operations of one of an own op's products."""
    a = args[0]
    if op == "sigmoid_attention":
        # Rows of queries and keys of a segment; one of both is equal in all segments.
        q, k, segments = args[0], args[1], args[3].shape[0] - 1
        return 2 * q.shape[1] * q.shape[2] * len(q) * len(k) // segments
    if op.startswith("prototype_"):
        bank = args[1] if op == "prototype_lookup" else args[2]
        return 2 * len(a) * bank.numel()
    if op == "info_nce":
        return 2 * len(a) * len(a) * a.shape[1]
    return 0
