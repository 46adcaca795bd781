"""The CUDA kernels on a GPU against the CPU library, which takes the same steps."""

import numpy as np
import pytest
import torch

from prior_fast import extension, ops
from prior_fast.ops.match_prototypes import matching_cost

if not torch.cuda.is_available():
    pytest.skip("wants a GPU", allow_module_level=True)
if extension.unavailable("cuda") is not None:
    pytest.skip(f"wants the CUDA library: {extension.unavailable('cuda')}", allow_module_level=True)

pytestmark = pytest.mark.gpu
# Sizes around each change of kernel: up to 32, 64 and 128 columns for a warp, 1,024 and 4,096 for a block.
SHAPES = [
    (1, 1),
    (3, 7),
    (16, 16),
    (31, 32),
    (33, 33),
    (20, 64),
    (65, 65),
    (128, 128),
    (100, 129),
    (300, 300),
    (40, 1024),
]
SHAPES += [(5, 1025), (7, 4096), (9, 4), (300, 100)]


def draw(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    if kind == "ties":
        return rng.integers(0, 4, shape).astype(np.float32)
    if kind == "some forbidden":
        return np.where(rng.random(shape) < 0.05, np.inf, rng.random(shape)).astype(np.float32)
    if kind == "1e-12 to 1e12":
        return (10 ** rng.uniform(-12, 12, shape)).astype(np.float32)
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["normal", "ties", "some forbidden", "1e-12 to 1e12"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_same_answers_as_on_the_cpu(shape, kind, dtype, rng):
    """Bit for bit: same steps, same float64 arithmetic, same choice among ties."""
    cost = torch.from_numpy(draw(rng, kind, (7, *shape))).to(dtype)
    for maximize in (False, True):
        found = ops.linear_sum_assignment(cost.cuda(), maximize=maximize, backend="cuda", return_status=True)
        wanted = ops.linear_sum_assignment(cost, maximize=maximize, backend="cpp", return_status=True)
        assert torch.equal(found.status.cpu(), wanted.status)
        assert torch.equal(found.columns.cpu(), wanted.columns)


def test_golden_totals(golden):
    with np.load(golden / "lap_cases.npz", allow_pickle=False) as file:
        cases = {name: file[name] for name in file.files}
    for i, shape in enumerate(cases["shape"]):
        flat = cases["cost"][cases["cost_offset"][i] : cases["cost_offset"][i + 1]]
        cost = torch.from_numpy(flat.reshape(shape)).double()
        columns = ops.linear_sum_assignment(cost.cuda(), backend="cuda").cpu()
        rows = torch.nonzero(columns >= 0)[:, 0]
        total = cost[rows, columns[rows]].sum().item()
        scale = max(cost.abs().max().item(), 1.0) if cost.numel() else 1.0
        assert total == pytest.approx(cases["total_f64"][i], rel=1e-12, abs=1e-12 * scale)


def test_what_cannot_be_solved_has_no_answer_and_a_status(monkeypatch):
    nan, inf = torch.nan, torch.inf
    cost = torch.tensor([[[1.0, 2], [3, 4]], [[nan, 2], [3, 4]], [[inf, inf], [3, 4]]], device="cuda")
    columns, status = ops.linear_sum_assignment(cost, return_status=True)
    assert status.tolist() == [0, 1, 2] and (columns[1:] == -1).all()
    assert (ops.linear_sum_assignment(cost)[1:] == -1).all()
    monkeypatch.setenv("PRIOR_FAST_CHECK", "1")
    with pytest.raises(ValueError, match=r"cost\[1\]: matrix contains invalid"):
        ops.linear_sum_assignment(cost)


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("queries", "width"), [(16, 768), (5, 33), (32, 100), (40, 64)])
def test_matching(queries, width, dtype, metric, rng):
    """Totals equal the CPU library's on the same, rounded inputs; 40 queries take two iterations."""
    lengths = [int(n) for n in rng.integers(0, queries + 1, 13)]
    prediction = torch.from_numpy(rng.standard_normal((13, queries, width))).to(dtype)
    target = torch.from_numpy(rng.standard_normal((sum(lengths), width))).to(dtype)
    cu = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32)
    cost = matching_cost(prediction.double(), target.double(), cu, metric)
    found = ops.match_prototypes(prediction.cuda(), target.cuda(), cu.cuda(), metric=metric, backend="cuda").cpu()
    wanted = ops.match_prototypes(prediction, target, cu, metric=metric, backend="cpp")
    for b, n in enumerate(lengths):
        totals = []
        for taken in (found[b].tolist(), wanted[b].tolist()):
            assert sorted(j for j in taken if j >= 0) == list(range(n))
            totals.append(sum(cost[b, i, j if j >= 0 else queries - 1].item() for i, j in enumerate(taken)))
        assert totals[0] == pytest.approx(totals[1], rel=1e-5, abs=1e-5)


def test_no_host_sync_any_stream_and_a_graph(rng):
    prediction = torch.from_numpy(rng.standard_normal((128, 16, 768))).float().cuda()
    target, cu = prediction[:, :9].flatten(0, 1).contiguous(), torch.arange(0, 129 * 9, 9, dtype=torch.int32).cuda()
    wanted = ops.match_prototypes(prediction, target, cu)
    costs = torch.rand(128, 16, 16, device="cuda")
    columns = ops.linear_sum_assignment(costs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            ops.match_prototypes(prediction, target, cu)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                captured = ops.match_prototypes(prediction, target, cu)
                captured_columns = ops.linear_sum_assignment(costs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for _ in range(1000):
        captured.fill_(-7)
        captured_columns.fill_(-7)
        graph.replay()
        assert torch.equal(captured, wanted) and torch.equal(captured_columns, columns)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="wants two GPUs")
def test_another_device_than_the_current_one(rng):
    cost = torch.from_numpy(rng.random((3, 16, 16)))
    found = ops.linear_sum_assignment(cost.to("cuda:1"))
    assert found.device == torch.device("cuda:1")
    assert torch.equal(found.cpu(), ops.linear_sum_assignment(cost, backend="cpp"))
