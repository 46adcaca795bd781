import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast import extension, ops

BACKENDS = [
    "scipy",
    pytest.param("cpp", marks=pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="not built")),
]


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


@pytest.mark.parametrize("backend", [None, "reference", *BACKENDS])
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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 4), (3, 5), (5, 3), (1, 6)])
def test_batches_against_every_permutation(n, m, maximize, backend, randn):
    cost = randn(4, n, m)
    columns = ops.linear_sum_assignment(cost, maximize=maximize, backend=backend)
    assert columns.shape == (4, n) and columns.dtype == torch.int64 and not columns.requires_grad
    for matrix, assigned in zip(cost, columns, strict=True):
        assert total(matrix, assigned) == pytest.approx(brute_force(matrix, max if maximize else min), rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 0, 0), (0, 4), (4, 0)])
def test_empty(shape, backend):
    columns = ops.linear_sum_assignment(torch.zeros(shape), backend=backend)
    assert columns.shape == shape[:-1] and (columns == -1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_is_kept_and_low_precisions_are_raised(backend):
    cost = torch.tensor([[1.0 + 1e-12, 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert ops.linear_sum_assignment(cost, backend=backend).tolist() == [1, 0]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        cost = torch.tensor([[2, 1], [0, 5]], dtype=dtype)
        assert ops.linear_sum_assignment(cost, backend=backend).tolist() == [1, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_non_contiguous(backend, randn):
    cost = randn(3, 4, 5).permute(2, 1, 0)
    columns = ops.linear_sum_assignment(cost, backend=backend)
    assert torch.equal(columns, ops.linear_sum_assignment(cost.contiguous(), backend=backend))


# Widths around the 8 columns that the CPU solver processes at once, and tall, flat and square matrices.
SHAPES = [(1, 1), (1, 9), (7, 7), (8, 8), (9, 9), (5, 16), (16, 16), (17, 4), (12, 25), (33, 31)]
# Each makes [B, n, m] of float64 numbers that float32 holds too.
FAMILIES = {
    "uniform": lambda rng, shape: rng.random(shape),
    "negative": lambda rng, shape: rng.standard_normal(shape) - 3,
    "ties": lambda rng, shape: rng.integers(0, 3, shape).astype(float),
    "equal rows": lambda rng, shape: np.broadcast_to(rng.random((shape[0], 1, shape[2])), shape),
    "equal columns": lambda rng, shape: np.broadcast_to(rng.random((shape[0], shape[1], 1)), shape),
    "constant": lambda rng, shape: np.full(shape, 2.5),
    "1e-12 to 1e12": lambda rng, shape: 10 ** rng.uniform(-12, 12, shape) * rng.choice([-1, 1], shape),
    "some forbidden": lambda rng, shape: np.where(rng.random(shape) < 0.1, np.inf, rng.random(shape)),
}


@pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="not built")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_thousands_of_totals_are_scipys(family, dtype, rng):
    """140 problems of each of 10 shapes, 2 dtypes and 8 families: 22,400."""
    for shape in SHAPES:
        cost = torch.from_numpy(np.array(FAMILIES[family](rng, (140, *shape)))).to(dtype)
        maximize = family != "some forbidden" and bool(rng.integers(2))
        found = ops.linear_sum_assignment(cost, maximize=maximize, backend="cpp", return_status=True)
        true = ops.linear_sum_assignment(cost, maximize=maximize, backend="scipy", return_status=True)
        assert torch.equal(found.status, true.status)
        for matrix, columns, wanted, status in zip(
            cost.double(), found.columns, true.columns, true.status, strict=True
        ):
            if status:
                assert (columns == -1).all()
            else:
                size = matrix[torch.isfinite(matrix)].abs().max().item()
                assert total(matrix, columns) == pytest.approx(total(matrix, wanted), rel=1e-12, abs=1e-13 * size)


@pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="not built")
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_matrix_has_scipys_total(data):
    n, m = data.draw(st.integers(0, 12)), data.draw(st.integers(0, 12))
    numbers = st.floats(-(2.0**40), 2.0**40, width=32) | st.integers(-2, 2).map(float)
    cost = torch.tensor(data.draw(st.lists(numbers, min_size=n * m, max_size=n * m)), dtype=torch.float64).view(n, m)
    found, wanted = (ops.linear_sum_assignment(cost, backend=backend) for backend in ("cpp", "scipy"))
    size = cost.abs().max().item() if cost.numel() else 0.0
    assert total(cost, found) == pytest.approx(total(cost, wanted), rel=1e-12, abs=1e-13 * size)


@pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="not built")
@pytest.mark.parametrize(("batch", "n", "m"), [(3, 300, 300), (2, 257, 700), (1, 1024, 1024), (2, 500, 60)])
def test_large_problems(batch, n, m, rng):
    cost = torch.from_numpy(rng.random((batch, n, m))).float()
    found, wanted = (ops.linear_sum_assignment(cost, backend=backend) for backend in ("cpp", "scipy"))
    for matrix, columns, true in zip(cost.double(), found, wanted, strict=True):
        assert total(matrix, columns) == pytest.approx(total(matrix, true), rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_status_instead_of_an_error(backend):
    nan, inf = torch.nan, torch.inf
    cost = torch.tensor(
        [[[1, 2], [3, 4]], [[nan, 2], [3, 4]], [[inf, inf], [3, 4]], [[-inf, 2], [3, 4]], [[inf, 1], [1, inf]]]
    )
    columns, status = ops.linear_sum_assignment(cost, backend=backend, return_status=True)
    assert status.tolist() == [0, 1, 2, 1, 0] and status.dtype == torch.int32
    assert (columns[1:4] == -1).all() and columns[4].tolist() == [1, 0] and sorted(columns[0].tolist()) == [0, 1]
    gains = ops.linear_sum_assignment(-cost, maximize=True, backend=backend, return_status=True)
    assert torch.equal(gains.status, status) and torch.equal(gains.columns[1:], columns[1:])
    one = ops.linear_sum_assignment(cost[2], backend=backend, return_status=True)
    assert one.columns.tolist() == [-1, -1] and one.status.item() == 2 and one.status.shape == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_passes_opcheck(backend, randn):
    op = torch.ops.prior_fast.linear_sum_assignment.default
    for n, m in ((3, 3), (4, 2), (0, 2)):
        torch.library.opcheck(op, (randn(2, n, m).detach(), False, backend, True))


@pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="not built")
def test_the_compiled_op_passes_opcheck(randn):
    for by_column in (False, True):
        arguments = (randn(2, 3, 5).detach(), True, by_column)
        torch.library.opcheck(torch.ops.prior_fast.solve_assignment.default, arguments)


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
    for backend in (None, "scipy"):
        with pytest.raises(ValueError, match=message):
            ops.linear_sum_assignment(cost, backend=backend)


def test_some_infinite_costs_are_served():
    assert ops.linear_sum_assignment(torch.tensor([[torch.inf, 1], [1, torch.inf]])).tolist() == [1, 0]


def test_wrong_backend():
    with pytest.raises(
        ValueError, match=r"backend='triton': this op has no such backend. can serve: .*scipy, reference"
    ):
        ops.linear_sum_assignment(torch.zeros(1, 1), backend="triton")
