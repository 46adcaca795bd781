"""Bytes and operations of the cases against the tensors' sizes and PyTorch's operation counts."""

import importlib
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from prior_fast import ops
from prior_fast.bench.common.case import Public, Work, size
from prior_fast.hardware.chips import BOARDS, CHIPS
from prior_fast.measure.kernels.bench_kernels import op_names, public_cases
from prior_fast.measure.kernels.contest import OURS, contestants
from prior_fast.measure.roofline import (
    Ceilings,
    better,
    chip_limits,
    launches_of,
    limit,
    measure_ceilings,
    record_launches,
    what_binds,
)
from prior_fast.measure.timing import flatten, make_run, ready

CPU = torch.device("cpu")
PRODUCTS = (
    "attention_weights",
    "info_nce",
    "prototype_kl",
    "prototype_lookup",
    "segment_info_nce",
    "sigmoid_attention",
)
# Ops without a backward pass.
NO_GRADIENT = ("linear_sum_assignment", "match_prototypes", "rotate_images")


@pytest.fixture
def equal_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports of four sentences each, so that plain PyTorch pads nothing."""
    for op in op_names():
        module = importlib.import_module(f"prior_fast.bench.{op}")
        if hasattr(module, "report_lengths"):
            monkeypatch.setattr(module, "report_lengths", lambda reports: [4] * reports)


def cases_of(op: str, dtype: str = "float32") -> list[Public]:
    """The op's small cases of one batch; the first of each kind."""
    found: dict[str, Public] = {}
    for case in public_cases(op, CPU, dtype, small=True):
        found.setdefault(case.shape.partition("B=")[0] + case.axis, case)
    return list(found.values())


def reference(case: Public) -> Any:
    return lambda *inputs: case.call(*inputs, backend="reference")


def test_every_op_has_public_calls() -> None:
    functions = [name for name in ops.__all__ if not isinstance(getattr(ops, name), type)]
    assert op_names() == functions


@pytest.mark.parametrize("op", op_names())
def test_cases_need_no_values(op: str) -> None:
    large = list(public_cases(op, torch.device("meta"), "bfloat16", small=False))
    assert len(large) >= 3 and len({case.shape for case in large}) == len(large)
    assert {case.op for case in large} == {op} and large[0].axis == "batch" and large[0].at == 128


@pytest.mark.parametrize("op", PRODUCTS)
def test_operations_are_those_that_pytorch_counts(op: str, equal_reports: None) -> None:
    for case in cases_of(op):
        for backward, work in ((False, case.forward), (True, case.both)):
            with FlopCounterMode(display=False) as counter:
                make_run(case, reference(case), backward)(ready(case, case.inputs, backward))
            assert work is not None and counter.get_total_flops() == work.operations, (case.shape, backward)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("op", [op for op in op_names() if op != "rotate_images"])
def test_bytes_are_those_of_the_tensors(op: str, dtype: str) -> None:
    for case in cases_of(op, dtype):
        output = flatten(case.call(*case.inputs))
        assert case.forward.least_bytes == size(*case.inputs, *output), case.shape
        if case.both is None:
            assert op in NO_GRADIENT
            continue
        ends = [part for part in output if part.is_floating_point()]
        gradients = [case.inputs[index] for index in case.wanted]
        assert case.both.least_bytes == case.forward.least_bytes + size(*ends, *gradients), case.shape


def test_rotated_images_are_read_once_each() -> None:
    case = cases_of("rotate_images")[0]
    images, *rest = case.inputs
    taken = images[case.inputs[1]]
    assert case.forward.least_bytes == size(taken, *rest, case.call(*case.inputs))


def test_the_limit_is_the_slower_of_memory_and_arithmetic() -> None:
    chip = CHIPS["sm_90"]
    seconds, bound = limit(chip, "bfloat16", Work(4_800_000, 790))
    assert (seconds, bound) == (pytest.approx(1e-6), "memory")
    seconds, bound = limit(chip, "float32", Work(48, 67_000_000))
    assert (seconds, bound) == (pytest.approx(1e-6), "arithmetic")


def test_the_limits_of_four_chips() -> None:
    limits = chip_limits("bfloat16", Work(10**9, 1))
    assert list(limits) == ["A100-40", "A100-80", "H100", "H200"] == [chip.name for chip in BOARDS]
    assert list(limits.values()) == sorted(limits.values(), reverse=True)


@pytest.mark.parametrize(
    ("seconds", "bound", "host", "words"),
    [
        (1.0, "memory", None, "neither"),
        (0.2, "memory", None, "memory"),
        (0.2, "arithmetic", 0.05, "arithmetic"),
        (0.2, "memory", 0.19, "host"),
        (0.05, "memory", None, "cache"),
        (0.05, "arithmetic", None, "arithmetic"),
    ],
)
def test_what_binds(seconds: float, bound: str, host: float | None, words: str) -> None:
    assert what_binds(seconds, 0.1, bound, host) == words


def test_ceilings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prior_fast.measure.roofline.LEAST_SECONDS", 0.01)
    ceilings = measure_ceilings(CPU, ["float32"])
    # Bounds: no working machine is slower, and no memory or CPU is faster.
    assert 1e8 < ceilings.bandwidth < 1e13 and 1e8 < ceilings.rates["float32"] < 1e15


def test_numbers_may_be_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {torch.float32: 100.0, torch.float16: 3.0, torch.bfloat16: 200.0}
    monkeypatch.setattr("prior_fast.measure.roofline._rate", lambda dtype, device: rates[dtype])
    monkeypatch.setattr("prior_fast.measure.roofline.LEAST_SECONDS", 0.01)
    ceilings = measure_ceilings(CPU, ["float16", "bfloat16"])
    assert ceilings.rates == {"float16": 100.0, "bfloat16": 200.0, "float32": 100.0}


def test_the_better_of_two_looks() -> None:
    assert better(Ceilings("", 1.0, {"a": 4.0}), Ceilings("", 2.0, {"a": 3.0})) == Ceilings("", 2.0, {"a": 4.0})


def test_launches_are_counted_without_a_gpu() -> None:
    pytest.importorskip("triton")
    assert launches_of("segment_mean") == {"forward": 1, "backward": 1, "forward+backward": 2}
    assert launches_of("match_prototypes") == {}


def test_launches_of_a_call_are_counted_with_its_backward_pass() -> None:
    pytest.importorskip("triton")
    case = next(public_cases("segment_softmax_pool", CPU, "float32", small=True))

    def triton(*inputs: torch.Tensor) -> torch.Tensor:
        return case.call(*inputs, backend="triton")

    for backward, launches in ((False, 1), (True, 2)):
        run, inputs = make_run(case, triton, backward), ready(case, case.inputs, backward)
        assert record_launches(partial(run, inputs)) == launches


def test_contestants_are_the_backends_and_the_named_ones() -> None:
    case = next(public_cases("linear_sum_assignment", CPU, "float32", small=True))
    found, left_out = contestants(case, with_compile=True)
    assert next(iter(found)) == OURS and {"reference", "torch.compile", "triton"}.isdisjoint(found)
    assert {"lapx", "torch-linear-assignment"} <= found.keys() | left_out.keys()
