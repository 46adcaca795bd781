"""Timing: outputs are checked before anything is timed, and competitors take turns."""

import time
from functools import partial
from typing import Any

import pytest
import torch

from prior_fast.bench.common.case import Public, Work
from prior_fast.errors import RunError
from prior_fast.measure.timing import (
    LEAST_SAMPLES,
    Timing,
    check,
    copies,
    copy_count,
    joined,
    make_run,
    ready,
    time_pass,
    truth,
)
from prior_fast.ops import segment_mean

OFFSETS = torch.tensor([0, 3, 4, 8], dtype=torch.int32)


def make_case(dtype: torch.dtype = torch.float32, **changes: Any) -> Public:
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    defaults: dict[str, Any] = {
        "op": "segment_mean",
        "shape": "B=3",
        "call": segment_mean,
        "inputs": (x, OFFSETS),
        "forward": Work(240, 40),
        "both": Work(480, 55),
        "wanted": (0,),
    }
    return Public(**defaults | changes)


def nothing(*inputs: torch.Tensor) -> None:
    """An empty benchmark."""


def zeros(x: torch.Tensor, cu: torch.Tensor) -> torch.Tensor:
    return x.new_zeros(len(cu) - 1, x.shape[1])


def half(x: torch.Tensor, cu: torch.Tensor) -> torch.Tensor:
    """The first half of the work."""
    mean = segment_mean(x, cu)
    return torch.cat([mean[:2], torch.zeros_like(mean[2:])])


def flat_gradient(x: torch.Tensor, cu: torch.Tensor) -> torch.Tensor:
    """The right output with a gradient of 0."""
    return segment_mean(x, cu).detach() + 0 * x.sum()


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_computes_is_let_through(dtype: torch.dtype, backward: bool) -> None:
    case = make_case(dtype)
    assert check(case, "ours", case.call, backward, truth(case, backward)) < 0.01


@pytest.mark.parametrize("empty", [nothing, zeros, half])
def test_an_empty_benchmark_is_an_error(empty: Any) -> None:
    case = make_case()
    with pytest.raises(RunError, match="segment_mean B=3: empty"):
        check(case, "empty", empty, False, truth(case, False))


@pytest.mark.parametrize("empty", [nothing, zeros, flat_gradient])
def test_a_backward_pass_without_gradients_is_an_error(empty: Any) -> None:
    case = make_case()
    with pytest.raises(RunError, match="segment_mean B=3: empty"):
        check(case, "empty", empty, True, truth(case, True))


def test_not_a_number_is_an_error() -> None:
    case = make_case()
    with pytest.raises(RunError, match="nan of its norm"):
        check(case, "broken", lambda x, cu: segment_mean(x, cu) * float("nan"), False, truth(case, False))


def test_a_wrong_shape_is_an_error() -> None:
    case = make_case()
    with pytest.raises(RunError, match=r"shape \[2, 5\], wanted \[3, 5\]"):
        check(case, "short", lambda x, cu: segment_mean(x, cu)[:2], False, truth(case, False))


def test_what_is_judged_takes_the_place_of_the_output() -> None:
    case = make_case(judged=lambda output, x, cu: output.sum())
    reversed_rows = partial(lambda x, cu: segment_mean(x, cu).flip(0))
    check(case, "in another order", reversed_rows, False, truth(case, False))


def test_the_median_and_the_range_of_passes() -> None:
    found = joined([Timing([[5.0, 1.0, 2.0]], 0.1), Timing([[9.0, 9.0, 0.0]], 0.3), Timing([[3.0]], 0.2)])
    assert found.medians == [2, 9, 3] and found.calls == 7 and found.host == 0.2
    assert found.median == 3 and found.spread == (2, 9)
    assert joined([Timing([[7.0]])]).host is None


def test_a_slow_call_is_measured_as_slow() -> None:
    case = make_case()

    def slow(*inputs: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return case.call(*inputs)

    runs = {"ours": make_run(case, case.call, False), "slow": make_run(case, slow, False)}
    timings = time_pass(runs, copies(case, False), 0.01)
    assert timings["slow"].median >= 0.02 > timings["ours"].median
    assert all(found.calls >= LEAST_SAMPLES for found in timings.values())


def test_competitors_take_turns() -> None:
    order: list[str] = []
    runs = {name: partial(lambda name, inputs: order.append(name), name) for name in "ab"}
    time_pass(runs, [ready(make_case(), make_case().inputs, False)], 1e-9)
    assert order[-2 * LEAST_SAMPLES :] == ["a", "b"] * LEAST_SAMPLES


def test_each_pass_has_its_own_inputs() -> None:
    case = make_case()
    (first,), (second,) = copies(case, True), copies(case, True)
    assert first[0].data_ptr() != second[0].data_ptr() != case.inputs[0].data_ptr()
    assert torch.equal(first[0], case.inputs[0]) and first[0].is_leaf and first[0].requires_grad


def test_inputs_fill_the_cache_twice() -> None:
    assert copy_count(10**7, 5 * 10**7) == 11
    assert copy_count(10, 5 * 10**7) == 64
    assert copy_count(0, 5 * 10**7) == 64
    assert copy_count(2**33, 5 * 10**7) == 1


def test_the_backward_pass_is_in_the_timed_call() -> None:
    case = make_case()
    output, (gradient,) = make_run(case, case.call, True)(ready(case, case.inputs, True))
    assert output.requires_grad and gradient.shape == case.inputs[0].shape
