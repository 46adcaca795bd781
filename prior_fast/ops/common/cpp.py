"""When the C++ kernels of csrc/ can serve a call."""

import torch
from torch import Tensor

from prior_fast import extension
from prior_fast.ops.common.backend import constant_while_tracing

CPP_DTYPES = (torch.float32, torch.bfloat16)


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
