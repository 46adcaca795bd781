"""The linear sum assignment problem (bipartite matching of least total cost), for a batch of matrices."""

import os
import warnings
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from prior_fast import extension
from prior_fast.ops.common.backend import ENVIRONMENT_VARIABLE as BACKEND_VARIABLE
from prior_fast.ops.common.backend import constant_while_tracing, resolve_backend
from prior_fast.ops.common.checks import ENVIRONMENT_VARIABLE as CHECK_VARIABLE
from prior_fast.ops.common.checks import FLOAT_DTYPES, check_dtype, check_is_tensor
from prior_fast.ops.common.precision import accumulation_dtype

__all__ = ["Assignment", "linear_sum_assignment"]

# The largest number of columns (or of rows, if there are more rows) that a GPU block solves.
CUDA_COLUMNS = 4096
SOLVED, INVALID, INFEASIBLE = 0, 1, 2


class Assignment(NamedTuple):
    """columns [B, N] (or [N]) int64, and status [B] (or []) int32: 0 solved, 1 invalid costs, 2 infeasible."""

    columns: Tensor
    status: Tensor


def linear_sum_assignment_reference(cost: Tensor, maximize: bool = False) -> tuple[Tensor, Tensor]:
    """`linear_sum_assignment` of cost [B, N, M] by SciPy, one matrix at a time on the host: columns and status."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment as solve

    matrices = cost.detach().to("cpu", accumulation_dtype(cost)).numpy()
    columns = torch.full(cost.shape[:2], -1, dtype=torch.int64)
    status = torch.zeros(cost.shape[0], dtype=torch.int32)
    for index, matrix in enumerate(matrices):
        try:
            row, column = solve(matrix, maximize=maximize)
        except ValueError:
            worst = np.inf if maximize else -np.inf
            status[index] = INVALID if (np.isnan(matrix) | (matrix == worst)).any() else INFEASIBLE
        else:
            columns[index, torch.from_numpy(row)] = torch.from_numpy(column)
    return columns.to(cost.device), status.to(cost.device)


# csrc/ implements it for matrices with at least as many columns as rows; by_column returns the row of each column.
torch.library.define("prior_fast::solve_assignment", "(Tensor cost, bool maximize, bool by_column) -> (Tensor, Tensor)")


@torch.library.register_fake("prior_fast::solve_assignment")
def _(cost: Tensor, maximize: bool, by_column: bool) -> tuple[Tensor, Tensor]:
    problems, rows, columns = cost.shape
    answers = cost.new_empty(problems, columns if by_column else rows, dtype=torch.int64)
    return answers, cost.new_empty(problems, dtype=torch.int32)


def _solve(cost: Tensor, maximize: bool) -> tuple[Tensor, Tensor]:
    """Columns and status from the library of csrc/ for the device of cost [B, N, M]."""
    tall = cost.shape[1] > cost.shape[2]
    matrix = (cost.mT if tall else cost).to(accumulation_dtype(cost)).contiguous()
    return torch.ops.prior_fast.solve_assignment(matrix, maximize, tall)


# A custom op, so that torch.compile keeps one graph although the function reads values on the host.
@torch.library.custom_op("prior_fast::linear_sum_assignment", mutates_args=())
def _linear_sum_assignment(cost: Tensor, maximize: bool, backend: str, strict: bool) -> tuple[Tensor, Tensor]:
    compiled = backend in ("cpp", "cuda")
    columns, status = _solve(cost, maximize) if compiled else linear_sum_assignment_reference(cost, maximize)
    if strict:
        raise_unless_solved(status, "cost")
    return columns, status


@_linear_sum_assignment.register_fake
def _(cost: Tensor, maximize: bool, backend: str, strict: bool) -> tuple[Tensor, Tensor]:
    return cost.new_empty(cost.shape[:2], dtype=torch.int64), cost.new_empty(cost.shape[0], dtype=torch.int32)


class UnsolvableError(ValueError):
    """An assignment problem has no solution: its costs are not finite."""


def raise_unless_solved(status: Tensor, name: str) -> None:
    """Raise UnsolvableError for the first unsolved problem of `status` [B]; `name` is the argument with the costs."""
    statuses = status.tolist()
    failed = next((index for index, value in enumerate(statuses) if value != SOLVED), None)
    if failed is None:
        return
    if statuses[failed] == INVALID:
        raise UnsolvableError(f"{name}[{failed}]: matrix contains invalid numeric entries (NaN, or an infinite gain)")
    message = "cost matrix is infeasible: its infinite costs leave no finite assignment"
    raise UnsolvableError(f"{name}[{failed}]: {message}")


def is_strict(x: Tensor, return_status: bool) -> bool:
    """Whether an unsolvable problem is an error: on CPUs, and on GPUs with PRIOR_FAST_CHECK=1; never with a status."""
    return not return_status and (x.device.type == "cpu" or os.environ.get(CHECK_VARIABLE) == "1")


def solver_backends(x: Tensor) -> dict[str, str | None]:
    """The solver's backends for the device of `x`, best first: None, or the reason why it can't serve."""
    if x.device.type == "cuda":
        return {"cuda": _unavailable("cuda"), "scipy": None, "reference": None}
    return {"cpp": _unavailable("cpu"), "scipy": None, "reference": None}


# A compiled graph keeps the result from the time of tracing.
@constant_while_tracing
def _unavailable(kind: str) -> str | None:
    return extension.unavailable(kind)


def choose_solver(op_name: str, backend: str | None, available: dict[str, str | None]) -> str:
    """`resolve_backend`. If it falls back to SciPy without being asked to, a warning is printed once per process."""
    chosen = resolve_backend(op_name, backend, available)
    if chosen == "scipy" and backend is None and not os.environ.get(BACKEND_VARIABLE):
        _warn_once(f"prior_fast: SciPy solves assignments on the host, since {next(filter(None, available.values()))}")
    return chosen


_warned: set[str] = set()


@constant_while_tracing
def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=2)


@overload
def linear_sum_assignment(
    cost: Tensor, *, maximize: bool = False, backend: str | None = None, return_status: Literal[False] = False
) -> Tensor: ...
@overload
def linear_sum_assignment(
    cost: Tensor, *, maximize: bool = False, backend: str | None = None, return_status: Literal[True]
) -> Assignment: ...
def linear_sum_assignment(
    cost: Tensor, *, maximize: bool = False, backend: str | None = None, return_status: bool = False
) -> Tensor | Assignment:
    """The column of each row in the assignment of least (or greatest) total, like SciPy's function of the same name.

    Crouse, "On implementing 2D rectangular assignment algorithms" (IEEE TAES 2016). Ties are broken arbitrarily.

    Args:
        cost: [B, N, M] or [N, M] of any sizes, 0 included; bfloat16 and float16 are converted to float32. The totals
            are optimal in float64 arithmetic for every dtype.
        maximize: maximize the total.
        backend: "cuda", the solver of csrc/ on a GPU (a warp or a block per problem, without reading anything back);
            "cpp", the solver of csrc/ on CPU threads; "scipy" (the same as "reference"), which reads the costs on the
            host and is used if csrc/ is not built; see `prior_fast.ops.common.backend.resolve_backend`.
        return_status: return an `Assignment`, and raise no error for problems that can't be solved.

    Returns:
        [B, N] (or [N]) int64 on the device of `cost`: the columns, -1 for the unassigned rows when N > M. A problem
        that can't be solved has -1 in all rows. It is an error on a CPU. On a GPU an error would have to wait for the
        result, so it is raised only with PRIOR_FAST_CHECK=1. No gradient.

    Raises:
        ValueError: a shape, dtype or backend that does not fit, a cost that is NaN or an infinite gain, or a matrix
            whose infinite costs leave no finite assignment.
    """
    check_is_tensor("cost", cost, "B N M")
    check_dtype("cost", cost, FLOAT_DTYPES)
    if cost.dim() not in (2, 3):
        raise ValueError(f"cost has shape {list(cost.shape)}, wanted [B, N, M] or [N, M]")
    available = solver_backends(cost)
    longest = max(cost.shape[-2:])
    if available.get("cuda", "") is None and longest > CUDA_COLUMNS:
        available["cuda"] = f"{longest} rows or columns are more than {CUDA_COLUMNS}"
    chosen = choose_solver("linear_sum_assignment", backend, available)
    batched = cost.detach() if cost.dim() == 3 else cost.detach().unsqueeze(0)
    strict = is_strict(cost, return_status)
    if chosen == "cuda" and not strict:
        columns, status = _solve(batched, maximize)
    else:
        columns, status = _linear_sum_assignment(batched, maximize, chosen, strict)
    if cost.dim() == 2:
        columns, status = columns.squeeze(0), status.squeeze(0)
    return Assignment(columns, status) if return_status else columns
