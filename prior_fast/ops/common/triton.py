"""When Triton's kernels can serve a call."""

import functools
import importlib.util
import os

import torch
from torch import Tensor

from prior_fast.ops.common.backend import constant_while_tracing

TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def with_triton(x: Tensor, for_float32: bool = True, fastest: bool = True) -> dict[str, str | None]:
    """The backends of an op with Triton kernels and a reference, best first for `x`: None, or why it can't serve.

    On a CPU the kernels run only in Triton's interpreter, so they serve only on request.

    for_float32: whether the kernels are also the best backend in float32.
    fastest: whether they are the best backend for this call at all.
    """
    reason = triton_unavailable(x)
    if x.device.type == "cuda" and fastest and (for_float32 or x.dtype != torch.float32):
        return {"triton": reason, "reference": None}
    return {"reference": None, "triton": reason}


def wants_gradient(*tensors: Tensor) -> bool:
    """Whether a call with these tensors is differentiated."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def triton_unavailable(x: Tensor) -> str | None:
    """None if Triton's kernels can take `x`, else the reason."""
    missing = _missing(x.device.type)
    if missing is not None:
        return missing
    if x.dtype not in TRITON_DTYPES:
        return f"it takes float32, bfloat16 and float16, not {str(x.dtype).removeprefix('torch.')}"
    return None


@constant_while_tracing
def _missing(device_type: str) -> str | None:
    if not _installed():
        return "triton is not installed"
    if device_type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return "it runs on GPUs (and with TRITON_INTERPRET=1, slowly, on CPUs)"


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None
