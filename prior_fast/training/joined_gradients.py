"""Data parallelism over the processes of one machine: gradients are averaged through shared memory.

DistributedDataParallel sends full buckets while the backward pass goes on. On a CPU whose cores all compute, its
threads take that time from the backward pass, and gloo copies each gradient several times.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from prior_fast.model.exchange import Exchange


class JoinedGradients:
    """The gradients of some parameters as views of one tensor; parameters that the loss does not use have zeros.

    The first process's parameters are copied to the others, as DistributedDataParallel does.

    parameters: float32, on the CPU, each dense in memory.
    """

    def __init__(self, parameters: Collection[nn.Parameter], exchange: Exchange) -> None:
        self.parameters, self.exchange = list(parameters), exchange
        self.values = torch.zeros(sum(parameter.numel() for parameter in self.parameters))
        views = self._views()
        if exchange.rank == 0:
            for view, parameter in zip(views, self.parameters):
                view.copy_(parameter.detach())
        exchange.sum_(self.values)
        for view, parameter in zip(views, self.parameters):
            parameter.detach().copy_(view)
            parameter.grad = view
        self.clear()

    def clear(self) -> None:
        """Set the gradients to zero, before a backward pass."""
        self.values.zero_()

    def average(self) -> None:
        """Replace the gradients by their means over the processes; every process must call it."""
        self.exchange.sum_(self.values).div_(self.exchange.count)

    def _views(self) -> list[Tensor]:
        views, begin = [], 0
        for parameter in self.parameters:
            # With the parameter's strides: the optimizer then runs through both in the order of memory.
            views.append(self.values.as_strided(parameter.shape, parameter.stride(), begin))
            begin += parameter.numel()
        return views
