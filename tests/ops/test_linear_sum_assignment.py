import itertools

import numpy as np
import pytest
import torch

from prior_fast import ops


def total(cost, columns):
    """The sum over assigned pairs of one matrix; every column is taken at most once."""
    taken = columns[columns >= 0]
    assert len(set(taken.tolist())) == len(taken) == min(cost.shape)
    return sum(cost[i, j].item() for i, j in enumerate(columns.tolist()) if j >= 0)


def brute_force(cost, pick):
    n, m = cost.shape
    if n > m:
        return brute_force(cost.T, pick)
    return pick(sum(cost[i, j].item() for i, j in enumerate(p)) for p in itertools.permutations(range(m), n))


@pytest.mark.parametrize("backend", [None, "scipy", "reference"])
def test_golden(backend, golden):
    with np.load(golden / "lap_cases.npz", allow_pickle=False) as file:
        cases = {name: file[name] for name in file.files}
    assert len(cases["shape"]) == 200
    for i, shape in enumerate(cases["shape"]):
        flat = cases["cost"][cases["cost_offset"][i] : cases["cost_offset"][i + 1]]
        cost = torch.from_numpy(flat.reshape(shape)).double()
        columns = ops.linear_sum_assignment(cost, backend=backend)
        scale = max(cost.abs().max().item(), 1.0) if cost.numel() else 1.0
        assert total(cost, columns) == pytest.approx(cases["total_f64"][i], rel=1e-12, abs=1e-12 * scale)
        if cases["unique"][i]:
            pairs = slice(cases["assign_offset"][i], cases["assign_offset"][i + 1])
            wanted = torch.full((shape[0],), -1)
            wanted[torch.from_numpy(cases["row"][pairs])] = torch.from_numpy(cases["col"][pairs])
            assert torch.equal(columns, wanted)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 4), (3, 5), (5, 3), (1, 6)])
def test_batches_against_every_permutation(n, m, maximize, randn):
    cost = randn(4, n, m)
    columns = ops.linear_sum_assignment(cost, maximize=maximize)
    assert columns.shape == (4, n) and columns.dtype == torch.int64 and not columns.requires_grad
    for matrix, assigned in zip(cost, columns, strict=True):
        assert total(matrix, assigned) == pytest.approx(brute_force(matrix, max if maximize else min), rel=1e-12)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 0, 0), (0, 4), (4, 0)])
def test_empty(shape):
    columns = ops.linear_sum_assignment(torch.zeros(shape))
    assert columns.shape == shape[:-1] and (columns == -1).all()


def test_float64_is_kept_and_low_precisions_are_raised():
    cost = torch.tensor([[1.0 + 1e-12, 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert ops.linear_sum_assignment(cost).tolist() == [1, 0]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert ops.linear_sum_assignment(torch.tensor([[2, 1], [0, 5]], dtype=dtype)).tolist() == [1, 0]


def test_non_contiguous(randn):
    cost = randn(3, 4, 5).permute(2, 1, 0)
    assert torch.equal(ops.linear_sum_assignment(cost), ops.linear_sum_assignment(cost.contiguous()))


def test_passes_opcheck(randn):
    op = torch.ops.prior_fast.linear_sum_assignment.default
    for n, m in ((3, 3), (4, 2), (0, 2)):
        torch.library.opcheck(op, (randn(2, n, m).detach(), False))


def test_compiles_to_one_graph(randn, check_compiled):
    def function(cost, x):
        return (ops.linear_sum_assignment(cost) * x).sum()

    check_compiled(function, (randn(2, 3, 5), randn(2, 3)), (randn(4, 6, 5), randn(4, 6)))


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (torch.tensor([[[1.0]], [[torch.nan]]]), r"cost\[1\]: matrix contains invalid numeric entries"),
        (torch.tensor([[torch.inf, torch.inf], [1, 2]]), r"cost\[0\]: cost matrix is infeasible"),
        (torch.zeros(3), r"cost has shape \[3\], wanted \[B, N, M\] or \[N, M\]"),
        (torch.zeros(2, 2, dtype=torch.int64), r"cost has dtype torch.int64, wanted one of float32"),
        ([[1.0]], r"cost must be a tensor \[B, N, M\], got list"),
    ],
)
def test_wrong_costs(cost, message):
    with pytest.raises(ValueError, match=message):
        ops.linear_sum_assignment(cost)


def test_some_infinite_costs_are_served():
    assert ops.linear_sum_assignment(torch.tensor([[torch.inf, 1], [1, torch.inf]])).tolist() == [1, 0]


def test_wrong_backend():
    with pytest.raises(ValueError, match=r"backend='triton': this op has no such backend. can serve: scipy, reference"):
        ops.linear_sum_assignment(torch.zeros(1, 1), backend="triton")
