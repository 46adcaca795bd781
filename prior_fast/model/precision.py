"""The precision of losses."""

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """x in float32 if autocast made it bfloat16 or float16: losses are not computed in half precision."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
