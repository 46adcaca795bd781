"""`pytest bench/`: the public calls of every op and their competitors under pytest-benchmark."""

import functools
import itertools
from typing import Any

import pytest
import torch

WANTED = "pytest-benchmark is not installed: pip install pytest-benchmark"


def _device() -> tuple[torch.device, str, bool]:
    """The device and dtype of the calls, and whether shapes are small: as in `prior-fast bench kernels`."""
    on_gpu = torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu"), "bfloat16" if on_gpu else "float32", not on_gpu


@functools.lru_cache(maxsize=1)
def case_of(op: str, number: int) -> Any:
    """The op's case number `number`."""
    from prior_fast.measure.kernels.bench_kernels import public_cases

    return next(itertools.islice(public_cases(op, *_device()), number, None))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each call, direction and competitor."""
    if "call" not in metafunc.fixturenames:
        return
    if not metafunc.config.pluginmanager.hasplugin("benchmark"):
        metafunc.parametrize("call", [pytest.param(None, marks=pytest.mark.skip(reason=WANTED))], ids=["all"])
        return
    from prior_fast.measure.kernels.bench_kernels import op_names, public_cases
    from prior_fast.measure.kernels.contest import BOTH, FORWARD, contestants

    calls = []
    for op in op_names():
        for number, case in enumerate(public_cases(op, *_device())):
            directions = [FORWARD] if case.both is None else [FORWARD, BOTH]
            for direction, who in itertools.product(directions, contestants(case, torch.cuda.is_available())[0]):
                name = f"{op}-{case.shape.replace(' ', ',')}-{direction}-{who}"
                calls.append(pytest.param((op, number, direction, who), id=name))
    metafunc.parametrize("call", calls)


@pytest.fixture
def measured(call: Any, request: pytest.FixtureRequest) -> Any:
    """The case of a call, its direction, its competitor, and pytest-benchmark's fixture."""
    op, number, direction, who = call
    return case_of(op, number), direction, who, request.getfixturevalue("benchmark")
