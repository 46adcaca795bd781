"""When the C++ kernels of csrc/ can serve a call."""

import os
from itertools import pairwise

import torch
from torch import Tensor

from prior_fast import extension
from prior_fast.ops.common import backend, checks
from prior_fast.ops.common.backend import constant_while_tracing

CPP_DTYPES = (torch.float32, torch.bfloat16)
_VARIABLES = (checks.ENVIRONMENT_VARIABLE, backend.ENVIRONMENT_VARIABLE)


def with_cpp(x: Tensor, others: dict[str, str | None]) -> dict[str, str | None]:
    """The backends of an op with C++ kernels for CPUs, best first for `x`: None, or why it can't serve.

    others: the op's other backends, likewise.
    """
    if x.device.type != "cpu":
        return {**others, "cpp": "it runs on CPUs"}
    reason = _unavailable()
    if reason is None and x.dtype not in CPP_DTYPES:
        reason = f"it takes float32 and bfloat16, not {str(x.dtype).removeprefix('torch.')}"
    return {"cpp": reason, **others}


# A compiled graph keeps the result from the time of tracing.
@constant_while_tracing
def _unavailable() -> str | None:
    return extension.unavailable("cpu")


def surely_serves(wanted: str | None, *tensors: Tensor) -> bool:
    """Whether "cpp" serves a call with these float tensors, which have one dtype, if the rest of it is right.

    With `offsets_fit` it takes a quarter of the time of the checks that find what is wrong, and the checks take longer
    than a small batch's arithmetic. False if anything is unusual; the checks then decide.

    wanted: the op's argument `backend`.
    """
    if wanted is not None or torch.compiler.is_compiling():
        return False
    for x in tensors:
        if type(x) is not Tensor or not x.is_cpu:
            return False
    dtype = tensors[0].dtype
    for x in tensors:
        if x.dtype != dtype:
            return False
    return (
        dtype in CPP_DTYPES
        and _VARIABLES[0] not in os.environ
        and _VARIABLES[1] not in os.environ
        and extension.unavailable("cpu") is None
    )


def offsets_fit(cu_seqlens: Tensor, rows: int, longest: int | None = None) -> bool:
    """Whether `cu_seqlens` holds offsets of segments in `rows` rows, none of them of more than `longest` rows.

    False also if anything about them is unusual.
    """
    if type(cu_seqlens) is not Tensor or cu_seqlens.dtype not in checks.OFFSET_DTYPES or not cu_seqlens.is_cpu:
        return False
    offsets = cu_seqlens.tolist()
    if type(offsets) is not list or not offsets or type(offsets[0]) is not int:
        return False
    if offsets[0] != 0 or offsets[-1] != rows:
        return False
    bound = rows if longest is None else longest
    return bound >= 0 and all(0 <= end - begin <= bound for begin, end in pairwise(offsets))
