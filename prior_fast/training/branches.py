"""Independent parts of a step at once, each in a thread of its own, forward and backward.

Threads that share each operation wait for each other in every one of them; beside another busy process they wait most
of the time. Two branches wait only where they end. torch releases Python's lock in its operations.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Function = Callable[..., Tensors]


class Branches:
    """Runs two functions at once, with half of torch's threads each, for losses on the CPU."""

    def __init__(self) -> None:
        self._helper = ThreadPoolExecutor(1, "branch")

    def run(
        self, one: Function, other: Function, inputs: Mapping[str, Tensor], weight: Tensor
    ) -> tuple[Tensors, Tensors]:
        """one(**inputs) and other(**inputs).

        Besides the inputs, the functions may use parameters, and tensors without a gradient.

        weight: a parameter: the results have a gradient also where no input has one.
        """
        split = _Split(self, (one, other), list(inputs), torch.is_grad_enabled())
        outputs = iter(_AtOnce.apply(split, weight, *inputs.values()))
        first, second = ({name: next(outputs) for name in result} for result in split.results)
        return first, second

    def close(self) -> None:
        """End the thread."""
        self._helper.shutdown()

    def at_once(self, one: Callable[[], Any], other: Callable[[], Any]) -> list[Any]:
        """The results of both; `other` runs in the helper's thread, in the modes of this one."""
        threads = torch.get_num_threads()
        share = max(threads // 2, 1)
        modes = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

        def in_thread() -> Any:
            grad, autocast, dtype = modes
            with _threads(share), torch.set_grad_enabled(grad), torch.autocast("cpu", dtype, enabled=autocast):
                return other()

        with _threads(share):
            later = self._helper.submit(in_thread)
            try:
                result = one()
            finally:
                # Also after an error here: nothing may still be running when it is raised.
                later.exception()
        return [result, later.result()]


class _Split:
    """Two functions, their inputs without a history, and their results; grad: whether these have a gradient."""

    def __init__(
        self, branches: Branches, functions: tuple[Function, Function], names: Sequence[str], grad: bool
    ) -> None:
        self.branches, self.functions, self.names, self.grad = branches, functions, names, grad
        self.inputs: list[list[Tensor]] = []
        self.results: list[Tensors] = []

    def forward(self, inputs: Sequence[Tensor]) -> None:
        # For each branch its own, whose gradients are then added.
        self.inputs = [[x.detach().requires_grad_(x.requires_grad) for x in inputs] for _ in self.functions]
        calls = [lambda place=place: self._call(place) for place in range(2)]
        self.results = self.branches.at_once(*calls)

    def backward(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        first = len(self.results[0])
        parts = gradients[:first], gradients[first:]
        results = [list(result.values()) for result in self.results]
        calls = [lambda place=place: _run_backward(results[place], parts[place]) for place in range(2)]
        self.branches.at_once(*calls)
        return [_sum(one.grad, other.grad) for one, other in zip(*self.inputs)]

    def _call(self, place: int) -> Tensors:
        with torch.set_grad_enabled(self.grad):
            return self.functions[place](**dict(zip(self.names, self.inputs[place])))


class _AtOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, split: _Split, weight: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        split.forward(inputs)
        ctx.split = split
        ctx.set_materialize_grads(False)
        return tuple(result.detach() for results in split.results for result in results.values())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.split.backward(gradients)


def _run_backward(results: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    pairs = [(x, dx) for x, dx in zip(results, gradients) if dx is not None and x.requires_grad]
    if pairs:
        torch.autograd.backward([x for x, _ in pairs], [dx for _, dx in pairs])


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """A context in which torch's operations of this thread use `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
