"""In a process with the stand-in: leave out what asks cuDNN or a CUDA runtime of its own, which the stand-in is not.

Convolutions then go by PyTorch's own kernels, and assignments by SciPy: the solver's library has its runtime inside.
"""

import torch

from prior_fast import extension

torch.backends.cudnn.enabled = False
_unavailable = extension.unavailable


def _without_cuda(kind: str) -> str | None:
    return "the stand-in can't serve it" if kind == "cuda" else _unavailable(kind)


extension.unavailable = _without_cuda
