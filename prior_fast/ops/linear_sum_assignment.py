"""The linear sum assignment problem (bipartite matching of least total cost), for a batch of matrices."""

import torch
from torch import Tensor

from prior_fast.ops._backend import resolve_backend
from prior_fast.ops._checks import FLOAT_DTYPES, check_dtype, check_is_tensor
from prior_fast.ops._precision import accumulation_dtype

__all__ = ["linear_sum_assignment"]


def linear_sum_assignment_reference(cost: Tensor, maximize: bool = False) -> Tensor:
    """`linear_sum_assignment` of cost [B, N, M] by SciPy, matrix after matrix, on the host."""
    from scipy.optimize import linear_sum_assignment as solve

    matrices = cost.detach().to("cpu", accumulation_dtype(cost)).numpy()
    columns = torch.full(cost.shape[:2], -1, dtype=torch.int64)
    for index, matrix in enumerate(matrices):
        try:
            row, column = solve(matrix, maximize=maximize)
        except ValueError as error:
            raise ValueError(f"cost[{index}]: {error}") from None
        columns[index, torch.from_numpy(row)] = torch.from_numpy(column)
    return columns.to(cost.device)


# An op of its own, so that torch.compile keeps one graph around it.
@torch.library.custom_op("prior_fast::linear_sum_assignment", mutates_args=())
def _linear_sum_assignment(cost: Tensor, maximize: bool) -> Tensor:
    return linear_sum_assignment_reference(cost, maximize)


@_linear_sum_assignment.register_fake
def _(cost: Tensor, maximize: bool) -> Tensor:
    return cost.new_empty(cost.shape[:2], dtype=torch.int64)


def linear_sum_assignment(cost: Tensor, *, maximize: bool = False, backend: str | None = None) -> Tensor:
    """The column of each row in the assignment of least (or greatest) total, as SciPy's function of this name.

    Crouse, "On implementing 2D rectangular assignment algorithms" (IEEE TAES 2016). Ties are broken any way.

    Args:
        cost: [B, N, M] or [N, M] of any sizes, 0 included; bfloat16 and float16 are raised to float32.
        maximize: look for the greatest total.
        backend: "scipy" (the same as "reference"), which reads the costs on the host; see
            `prior_fast.ops._backend.resolve_backend`.

    Returns:
        [B, N] (or [N]) int64 on the device of `cost`: the columns, -1 for the rows left over when N > M.
        No gradient.

    Raises:
        ValueError: a shape, dtype or backend that does not fit, a cost that is NaN, or a matrix whose infinite costs
            leave no finite assignment.
    """
    check_is_tensor("cost", cost, "B N M")
    check_dtype("cost", cost, FLOAT_DTYPES)
    if cost.dim() not in (2, 3):
        raise ValueError(f"cost has shape {list(cost.shape)}, wanted [B, N, M] or [N, M]")
    resolve_backend("linear_sum_assignment", backend, {"scipy": None, "reference": None})
    batched = cost.detach() if cost.dim() == 3 else cost.detach().unsqueeze(0)
    columns = _linear_sum_assignment(batched, maximize)
    return columns if cost.dim() == 3 else columns.squeeze(0)
