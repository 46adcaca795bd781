"""Batches of assignment problems: PRIOR's size, and the sizes for which solvers for detection publish times."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prior_fast.bench.common.case import Case, Public, Work, batches, missing, size
from prior_fast.ops import linear_sum_assignment

SHAPES = ((128, 16, 16), (1024, 16, 16), (256, 64, 64), (16, 300, 300), (208, 300, 300), (208, 300, 100))

SLOW_SIDE = 300
TOO_SLOW = "solves one matrix after another on the host: 128 of 300x300 take 0.1 to 0.3 s per call"


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """The public function. Bytes: the costs and the answers. Operations: one scan of each row of the costs."""
    for problems, rows, columns in SHAPES:
        cost = torch.rand(problems, rows, columns, device=device).to(dtype)
        answers = problems * rows * 8
        shape = f"B={problems} N={rows} M={columns}"
        run = partial(linear_sum_assignment, cost)
        yield Case("linear_sum_assignment", shape, "forward", run, size(cost) + answers, 3 * cost.numel())


def public(device: torch.device, dtype: torch.dtype, small: bool = False) -> Iterator[Public]:
    """PRIOR's problems, larger batches, larger problems, and many ties; bytes and operations as in `cases`."""
    first, prior = batches(small)[0], 128
    shapes = [("batch", problems, 16, 256) for problems in dict.fromkeys((*batches(small), prior))]
    shapes += [("problem size", first, side, 256) for side in ((32, 64, 300) if small else (64, 300))]
    shapes += [("ties", prior, 16, 8), ("ties", first, 300, 8)]
    for axis, problems, side, levels in shapes:
        # Multiples of 1/256 below 1 are exact in every dtype, so totals show whether an answer is optimal.
        too_slow = {} if small or side < SLOW_SIDE else {"scipy": TOO_SLOW, "lapx": TOO_SLOW}
        cost = (torch.randint(0, levels, (problems, side, side), device=device) / levels).to(dtype)
        yield Public(
            "linear_sum_assignment",
            f"{'many ties ' if axis == 'ties' else ''}B={problems} N={side} M={side}",
            linear_sum_assignment,
            (cost,),
            Work(size(cost) + problems * side * 8, 3 * cost.numel()),
            axis=axis,
            at=problems if axis == "batch" else side,
            others={"lapx": _lapx(), "torch-linear-assignment": _torch_linear_assignment()} | too_slow,
            judged=_totals,
            compiles=False,
        )


def _totals(columns: torch.Tensor, cost: torch.Tensor) -> torch.Tensor:
    """The total cost of each problem [B] in float64; NaN where two rows share a column."""
    total = cost.double().gather(2, columns.long().unsqueeze(2)).sum((1, 2))
    distinct = (columns.sort(1).values.diff(dim=1) > 0).all(1)
    return total.masked_fill(~distinct, float("nan"))


def _lapx() -> Callable[..., torch.Tensor] | str:
    """lapx's dense solver, one matrix after another on the host."""
    reason = missing("lap", "lapx")
    if reason:
        return reason

    def solve(cost: torch.Tensor) -> torch.Tensor:
        from lap import lapjv

        matrices = cost.to("cpu", torch.float64).numpy()
        return torch.stack([torch.from_numpy(lapjv(matrix)[1]) for matrix in matrices]).to(cost.device).long()

    return solve


def _torch_linear_assignment() -> Callable[..., torch.Tensor] | str:
    reason = missing("torch_linear_assignment", "torch-linear-assignment")
    if reason:
        return reason

    def solve(cost: torch.Tensor) -> torch.Tensor:
        from torch_linear_assignment import batch_linear_assignment

        return batch_linear_assignment(cost)

    return solve
