"""Batches of assignment problems: PRIOR's, and the sizes that solvers for detection publish."""

from collections.abc import Iterator
from functools import partial

import torch

from prior_fast.bench._case import Case, size
from prior_fast.ops import linear_sum_assignment

SHAPES = ((128, 16, 16), (1024, 16, 16), (256, 64, 64), (16, 300, 300), (208, 300, 300), (208, 300, 100))


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The public function; bytes are those of the costs and the answers, operations those of one scan for each row."""
    for problems, rows, columns in SHAPES:
        cost = torch.rand(problems, rows, columns, device=device).to(dtype)
        answers = problems * rows * 8
        shape = f"B={problems} N={rows} M={columns}"
        run = partial(linear_sum_assignment, cost)
        yield Case("linear_sum_assignment", shape, "forward", run, size(cost) + answers, 3 * cost.numel())
