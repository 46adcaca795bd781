"""What an older Triton does not take in kernels' signatures, which the tested one does."""

import importlib
import inspect
import pkgutil
from typing import Any

import pytest

pytest.importorskip("triton")

import triton.language as tl

import prior_fast.kernels


def jitted() -> list[tuple[str, Any]]:
    """All functions of the kernels' modules that Triton compiles, or interprets."""
    found = {}
    for module in pkgutil.walk_packages(prior_fast.kernels.__path__, "prior_fast.kernels."):
        for name, value in vars(importlib.import_module(module.name)).items():
            function = getattr(value, "fn", None)
            if type(value).__module__.startswith("triton.runtime") and inspect.isfunction(function):
                found[f"{function.__module__}.{name}"] = function
    return sorted(found.items())


def test_defaults_are_constexprs() -> None:
    """Triton 3.6 passes a default value as it is to a function that another one calls; products then do not compile."""
    functions = jitted()
    assert len(functions) > 60
    defaults = {
        f"{name}({parameter.name})": parameter.default
        for name, function in functions
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is not inspect.Parameter.empty
    }
    assert "prior_fast.kernels._dot.dot(precision)" in defaults
    assert [name for name, value in defaults.items() if not isinstance(value, tl.constexpr)] == []
