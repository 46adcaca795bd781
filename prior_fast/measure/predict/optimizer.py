"""The work of an update: clipping, Adam, and the copies of weights in bfloat16.

These copies and those of their gradients are part of "clipping and Adam", since torch makes all of them by kernels of
one name (multi_tensor_apply), by which bench/gpu/steps.py sorts them.
"""

from collections.abc import Collection
from typing import Literal

from prior_fast.errors import UsageError
from prior_fast.measure.predict.parts import OPTIMIZER, Call
from prior_fast.spelling import nearest

OptimizerKernel = Literal["torch", "triton"]  # as the setting `optimizer_kernel` names them
KERNELS: tuple[OptimizerKernel, ...] = ("torch", "triton")
WIDE, NARROW = 4, 2  # bytes of float32 and bfloat16
CHUNK = 11 * 2**20  # parameters that a launch of torch's fused Adam takes, on average in bench/results/nvidia-h200


def update_calls(
    parameters: int, narrowed: int, kernel: OptimizerKernel, clips: bool, tensors: Collection[int] = ()
) -> list[Call]:
    """The calls of an update.

    Args:
        parameters: trained numbers, in float32.
        narrowed: how many of them have a copy in bfloat16 that the products of recorded parts read.
        kernel: "torch": a launch or more for each of norm, scaling, Adam, copies of weights, copies of gradients.
            "triton": kernels/adam.py, twice for the norm and its sum, twice for the update, which also writes the
            copies; gradients of narrowed weights stay in bfloat16.
        clips: whether gradients are scaled.
        tensors: numbers of elements of the parameters; empty: launches are of many parameters.

    Raises:
        UsageError: there is no such kernel.
    """
    if kernel not in KERNELS:
        raise UsageError(f"optimizer kernel {kernel!r}{nearest(kernel, KERNELS) or ': choose from torch, triton'}")

    def call(name: str, moved: int, launches: int = 0) -> Call:
        launches = launches or len(tensors) or max(1, round(parameters / CHUNK))
        return Call(OPTIMIZER, "element-wise", name, "float32", bytes=moved, launches=launches)

    if kernel == "triton":
        gradients = WIDE * (parameters - narrowed) + NARROW * narrowed
        # Parameter and two moments are read and written.
        update = gradients + 6 * WIDE * parameters + NARROW * narrowed
        kinds = 2 if narrowed else 1
        return [
            call("norm of the gradients", gradients, kinds + 1),
            call("clipping, Adam and copies", update, kinds),
        ]
    calls = [call("norm of the gradients", WIDE * parameters)]
    if clips:
        calls.append(call("scaling of the gradients", 2 * WIDE * parameters))
    calls.append(call("Adam", 7 * WIDE * parameters))
    if narrowed:
        both = (WIDE + NARROW) * narrowed
        calls += [call("copies of weights in bfloat16", both), call("copies of gradients in float32", both)]
    return calls
