"""Checks each public call against float64 and then times it; the calls are those of `prior-fast bench kernels`."""

from typing import Any

import torch

from prior_fast.measure.kernels.contest import BOTH, COMPILED, contestants
from prior_fast.measure.timing import check, make_run, ready, truth


def test_op(measured: Any) -> None:
    case, direction, who, benchmark = measured
    backward = direction == BOTH
    # To torch.compile all shapes are recompilations of one function, of which it allows only a few.
    torch._dynamo.reset()
    function = contestants(case, who == COMPILED)[0][who]
    check(case, who, function, backward, truth(case, backward))
    run, inputs = make_run(case, function, backward), ready(case, case.inputs, backward)

    def call() -> None:
        run(inputs)
        if inputs[0].is_cuda:
            torch.cuda.synchronize()

    benchmark.group = f"{case.op} {case.shape} {direction}"
    work = case.both if backward else case.forward
    benchmark.extra_info.update(least_bytes=work.least_bytes, operations=work.operations)
    benchmark(call)
