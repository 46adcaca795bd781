"""Measures how fast this CPU makes the kinds of calls that a training step consists of.

The sizes are common ones and do not depend on the step, so that its times are predicted and not repeated.
"""

import itertools
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.measure.predict.assumptions import CpuAssumptions
from prior_fast.measure.predict.eager import EagerStep
from prior_fast.model.report_attention import report_attention

SECONDS = 0.2  # for each call, of which the least time counts
BYTES = 4  # of a float32 number
LARGE, SMALL = 2**24, 2**20  # float32 numbers
ROWS, NARROW, WIDE = 1440, 256, 1024
IMAGES, MAPS = 16, ((64, 28), (16, 56))  # channels and side
LENGTHS, HEADS = tuple(range(15, 166, 10)), 8  # tokens of reports, 90 on average
HEAD_WIDTHS = 16, 64
PARAMETERS, TENSORS, UPDATES = 2**22, 100, 3  # an update is a norm, a scaling and Adam


def calibrate(dtype: torch.dtype) -> CpuAssumptions:
    """The rates of this CPU, with products, convolutions and attention in `dtype`."""
    small, other = torch.randn(SMALL), torch.randn(SMALL)
    left, right = torch.randn(ROWS, NARROW).to(dtype), torch.randn(NARROW, WIDE).to(dtype)
    noise = torch.empty(SMALL)
    gelu = _seconds(lambda: F.gelu(small)) + _seconds(lambda: torch.ops.aten.gelu_backward(other, small))
    attention, weights = _attention(dtype)
    update_call = _update([16] * TENSORS) / (UPDATES * TENSORS)
    return CpuAssumptions(
        dtype=str(dtype).removeprefix("torch."),
        memory=_sums(dtype, LARGE),
        cache=_sums(dtype, SMALL),
        random=SMALL / _seconds(lambda: noise.bernoulli_(0.9)),
        gelu=2 * SMALL / gelu,
        product=2 * ROWS * NARROW * WIDE / _seconds(lambda: left @ right),
        convolution=_convolution(dtype),
        attention=attention,
        weights=weights,
        # The gradient is read three times and written once, the parameter and two moments are read and written.
        update=10 * BYTES * PARAMETERS / _update([PARAMETERS]),
        update_call=update_call,
        call=_call(),
    )


def _sums(dtype: torch.dtype, size: int) -> float:
    """Bytes a second of x + y, each as long as `size` float32 numbers."""
    x, y = (torch.randn(size * BYTES // dtype.itemsize).to(dtype) for _ in range(2))
    return 3 * BYTES * size / _seconds(lambda: x + y)


def _convolution(dtype: torch.dtype) -> float:
    """Operations a second of convolutions and their two gradients."""
    operations, seconds = 0, 0.0
    for channels, side in MAPS:
        x = torch.randn(IMAGES, channels, side, side).to(dtype, memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(channels, channels, 3, 3).to(dtype, memory_format=torch.channels_last).requires_grad_()
        dy = torch.randn_like(x)
        seconds += _seconds(lambda: torch.autograd.grad(F.conv2d(x, weight, padding=1), (x, weight), dy))  # noqa: B023
        operations += 3 * 2 * 9 * channels * x.numel()
    return operations / seconds


def _attention(dtype: torch.dtype) -> tuple[float, float]:
    """Operations a second, and weights a second, of softmax attention and its gradient.

    Its time is that of seven products of the heads' width, and of two passes over the weights that do not depend on it.
    """
    pairs = HEADS * sum(length**2 for length in LENGTHS)
    offsets = torch.tensor((0, *itertools.accumulate(LENGTHS)), dtype=torch.int32)
    times = []
    for width in HEAD_WIDTHS:
        q, k, v = (torch.randn(sum(LENGTHS), HEADS, width).to(dtype).requires_grad_() for _ in range(3))
        dout = torch.randn_like(q)
        times.append(
            _seconds(lambda: torch.autograd.grad(report_attention(q, k, v, offsets, 0.1), (q, k, v), dout))  # noqa: B023
        )
    each = max((times[1] - times[0]) / (HEAD_WIDTHS[1] - HEAD_WIDTHS[0]), 0.1 * times[1] / HEAD_WIDTHS[1])
    rest = max(times[0] - each * HEAD_WIDTHS[0], 0.1 * times[0])
    return 7 * 2 * pairs / each, 2 * pairs / rest


def _update(sizes: list[int]) -> float:
    """Seconds of clipping and Adam for parameters of these sizes."""
    parameters = [nn.Parameter(torch.randn(size)) for size in sizes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.Adam(parameters, fused=True)

    def update() -> None:
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return _seconds(update)


def _call() -> float:
    """Seconds of a call that has next to no work: of layers, forward and backward."""
    layers = [nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(0.1)) for _ in range(8)]
    model, x = nn.Sequential(*layers), torch.randn(4, 16)

    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        loss: Tensor = model(x).sum()
        loss.backward()
        return loss

    with EagerStep(0) as counted:
        step()
    return _seconds(step) / len(counted.calls)


def _seconds(call: Callable[[], object]) -> float:
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)
