"""The work of products and convolutions, forward and backward, from their shapes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FORWARD, DATA, WEIGHT = "forward", "data gradient", "weight gradient"


@dataclass(frozen=True)
class Gemm:
    """A product of matrices, `count` times: [rows, inner] times [inner, columns]."""

    rows: int
    columns: int
    inner: int
    count: int = 1

    @property
    def operations(self) -> int:
        """Additions and multiplications; a gradient of a factor takes as many."""
        return 2 * self.count * self.rows * self.columns * self.inner

    def least_bytes(self, itemsize: int) -> int:
        """Bytes of both factors and the result, which is also what the gradient of a factor reads and writes."""
        numbers = self.rows * self.inner + self.inner * self.columns + self.rows * self.columns
        return itemsize * self.count * numbers


def gemm_of(a: Tensor, b: Tensor) -> Gemm:
    """The product of [rows, inner] and [inner, columns], or of batches of such matrices."""
    return Gemm(a.shape[-2], b.shape[-1], a.shape[-1], math.prod(a.shape[:-2]))


@dataclass(frozen=True)
class Directions:
    """A convolution, whose three directions take the same operations and the same least bytes.

    Attributes:
        pixels: of the output, or of the input if transposed: each meets all taps.
        outputs, inputs: channels.
        taps: positions of the kernel.
        numbers: elements of input, weight and output.
    """

    pixels: int
    outputs: int
    inputs: int
    taps: int
    numbers: int

    @property
    def operations(self) -> int:
        """Additions and multiplications of each direction."""
        return 2 * self.pixels * self.taps * self.inputs * self.outputs

    def least_bytes(self, itemsize: int) -> int:
        """Each direction reads two of input, weight and output, and writes the third."""
        return itemsize * self.numbers


def convolution_of(x: Tensor, weight: Tensor, output: Tensor, transposed: bool) -> Directions:
    """The work of aten.convolution with one group."""
    outputs, inputs = (weight.shape[1], weight.shape[0]) if transposed else (weight.shape[0], weight.shape[1])
    return Directions(
        pixels=(x if transposed else output)[:, 0].numel(),
        outputs=outputs,
        inputs=inputs,
        taps=math.prod(weight.shape[2:]),
        numbers=x.numel() + weight.numel() + output.numel(),
    )


def name_of(dtype: torch.dtype) -> str:
    """ "float32", "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def size(*tensors: object) -> int:
    """Bytes of the tensors among the arguments and in lists of them."""
    total = 0
    for x in tensors:
        if isinstance(x, Tensor):
            total += x.numel() * x.element_size()
        elif isinstance(x, Sequence) and not isinstance(x, str):
            total += size(*x)
    return total
