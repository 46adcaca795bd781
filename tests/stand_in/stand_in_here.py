"""For a process with the stand-in: replaces calls that need cuDNN or another CUDA runtime than the stand-in.

Convolutions use PyTorch's own kernels. The solver's library contains its own CUDA runtime, so its ops are redefined
here: every query takes the first column.
"""

import torch
from torch import Tensor

from prior_fast import extension
from prior_fast.ops import linear_sum_assignment, match_prototypes  # noqa: F401 they define the solver's ops

torch.backends.cudnn.enabled = False
_unavailable = extension.unavailable
_solver = torch.library.Library("prior_fast", "IMPL")


def _first_column(x: Tensor, *options: object) -> tuple[Tensor, Tensor]:
    columns = torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device)
    return columns, torch.zeros(x.shape[0], dtype=torch.int32, device=x.device)


_solver.impl("solve_assignment", _first_column, "CUDA")
_solver.impl("solve_matching", _first_column, "CUDA")
extension.unavailable = lambda kind: None if kind == "cuda" else _unavailable(kind)
