"""The dtype in which ops accumulate."""

import torch
from torch import Tensor


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64 inputs, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def full_precision(x: Tensor) -> torch.autocast:
    """A context without autocast, so that the caller's autocast does not lower the precision of products."""
    return torch.autocast(x.device.type, enabled=False)
