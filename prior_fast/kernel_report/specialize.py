"""Derives the kernel version that Triton compiles for a recorded launch.

Triton specializes a kernel for the types of its arguments and for some of their values: an integer 1 becomes a
constant, and pointers and integers divisible by 16 are marked as such.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from prior_fast.kernels.common.launch import Launch

CONSTANT = "constexpr"
ALIGNMENT = 16

_TYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float64: "fp64",
    torch.bool: "i1",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}


@dataclass(frozen=True)
class Version:
    """One version of a kernel, in a form that another process can compile.

    Attributes:
        module: the kernel's module.
        kernel: its name in the module.
        types: name and type of each parameter, in order: "*bf16", "i32", "constexpr".
        constants: name and value of the constant parameters.
        aligned: names of the parameters that are divisible by 16.
        warps: warps per block.
        stages: stages of software pipelining.
    """

    module: str
    kernel: str
    types: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[str, ...]
    warps: int
    stages: int


def version_of(launch: "Launch") -> Version:
    """The version of the kernel that the launch runs.

    Raises:
        TypeError: an argument is not a tensor, a number or None.
    """
    kernel, values = launch.kernel, {**launch.arguments, **launch.constants}
    types, constants, aligned = [], [], []
    for parameter in kernel.params:
        value = values.get(parameter.name, parameter.default)
        kind, divisible = (CONSTANT, False) if parameter.is_constexpr else _specialize(parameter, value)
        types.append((parameter.name, kind))
        if kind == CONSTANT:
            constants.append((parameter.name, value))
        if divisible:
            aligned.append(parameter.name)
    return Version(
        module=kernel.fn.__module__,
        kernel=kernel.fn.__name__,
        types=tuple(types),
        constants=tuple(constants),
        aligned=tuple(aligned),
        warps=launch.num_warps,
        stages=launch.num_stages,
    )


def _specialize(parameter: Any, value: Any) -> tuple[str, bool]:
    """An argument's type, and whether it is marked as divisible by 16."""
    kind, divisible = _describe(value, not parameter.do_not_specialize, parameter.is_const)
    divisible = divisible and not parameter.do_not_specialize_on_alignment and not parameter.do_not_specialize
    annotated = parameter.annotation_type
    if not annotated:
        return kind, divisible
    return annotated, divisible and not annotated.startswith(("fp", "bf", "u1"))


def _describe(value: Any, specialize: bool, is_const: bool) -> tuple[str, bool]:
    if value is None:
        return CONSTANT, False
    if isinstance(value, torch.Tensor):
        # Allocations are aligned; a view may begin at any offset.
        divisible = int(value.storage_offset()) * value.element_size() % ALIGNMENT == 0
        return f"*{'k' if is_const else ''}{_TYPES[value.dtype]}", divisible
    if isinstance(value, bool):
        return "u1", False
    if isinstance(value, int):
        if value == 1 and specialize:
            return CONSTANT, False
        kind = "i32" if -(2**31) <= value < 2**31 else "i64" if -(2**63) <= value < 2**63 else "u64"
        return kind, value % ALIGNMENT == 0
    if isinstance(value, float):
        return "fp32", False
    raise TypeError(f"a kernel's argument is a {type(value).__name__}, wanted a tensor, a number or None")
