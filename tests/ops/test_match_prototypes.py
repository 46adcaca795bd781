import itertools

import pytest
import torch
from torch.nn.functional import cosine_similarity

from prior_fast import extension, ops
from prior_fast.ops.match_prototypes import matching_cost

BACKENDS = [
    "scipy",
    pytest.param("cpp", marks=pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="not built")),
]


def distance(x, y, metric):
    if metric == "cosine":
        return -cosine_similarity(x, y, dim=-1, eps=1e-8)
    return torch.linalg.vector_norm(x - y, ord=1 if metric == "l1" else 2, dim=-1)


def cost_of(prediction, sentences, taken, metric):
    """The total cost of a report's matching, by its definition; each sentence is taken exactly once."""
    assert sorted(taken[taken >= 0].tolist()) == list(range(len(sentences)))
    targets = torch.stack(
        [sentences[i] if i >= 0 else torch.zeros_like(p) for i, p in zip(taken, prediction, strict=True)]
    )
    return distance(prediction, targets, metric).sum().item()


@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_spg_loss(backend, golden_file):
    """The optimal totals, and the consistent losses that follow from the matching."""
    file = golden_file("spg_loss")
    prediction, lengths = file.leaf("logits"), file["lengths"].tolist()
    protos, bank = file.leaf("protos"), file.leaf("p.embed.weight")
    target = torch.cat([rows[:n] for rows, n in zip(protos, lengths, strict=True)])
    cu = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    matching = ops.match_prototypes(prediction, target, cu, backend=backend)
    assert matching.shape == (4, 16) and matching.dtype == torch.int64

    totals = []
    ordered = []
    for b, sentences in enumerate(target.split(lengths)):
        totals.append(cost_of(prediction[b], sentences, matching[b], "l1"))
        query_of = {j: i for i, j in enumerate(matching[b].tolist()) if j >= 0}
        ordered.append(prediction[b, [query_of[j] for j in range(lengths[b])]])
    assert totals == pytest.approx(file["optimal_cost_f64"].tolist(), rel=1e-5)
    loss = 10 * torch.tensor(totals).mean().item() / (16 * 64)
    assert loss == pytest.approx(file["spg_loss_consistent_f64"].item(), rel=1e-5)
    kl = ops.prototype_kl(file.leaf("features"), torch.cat(ordered), bank)
    file.check_scalar(kl, "kl_loss_consistent")


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
def test_the_cost(metric, randn, offsets):
    """Costs of each sentence, and then of zero vectors; the cost of padding is the query's norm."""
    prediction, target = randn(3, 4, 7), randn(6, 7)
    cost = matching_cost(prediction, target, offsets(4, 0, 2), metric)
    for b, sentences in enumerate(target.split([4, 0, 2])):
        padded = torch.cat([sentences, torch.zeros(4 - len(sentences), 7)])
        wanted = distance(prediction[b, :, None], padded[None], metric)
        torch.testing.assert_close(cost[b], wanted.detach(), rtol=1e-12, atol=1e-12)
    padding = {"l1": prediction.abs().sum(dim=2), "l2": prediction.norm(dim=2), "cosine": torch.zeros(3, 4).double()}
    torch.testing.assert_close(cost[1], padding[metric][1, :, None].expand(4, 4).detach())


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("lengths", [(4, 1, 3), (0, 2), (4,)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_total_cost_is_the_least_of_every_permutation(backend, lengths, metric, randn, offsets):
    queries = 4
    prediction, target = randn(len(lengths), queries, 3), randn(sum(lengths), 3)
    matching = ops.match_prototypes(prediction, target, offsets(*lengths), metric=metric, backend=backend)
    assert not matching.requires_grad
    for b, sentences in enumerate(target.split(lengths)):
        n = lengths[b]
        every = (torch.tensor([j if j < n else -1 for j in order]) for order in itertools.permutations(range(queries)))
        best = min(cost_of(prediction[b], sentences, taken, metric) for taken in every)
        assert cost_of(prediction[b], sentences, matching[b], metric) == pytest.approx(best, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_gets_its_own_sentence_not_that_of_the_inverse_matching(backend, randn, offsets):
    """Queries that are the sentences in another order; the order is not its own inverse. The last query is padding."""
    sentences = 10 * randn(3, 5).detach()
    order = [1, 2, 0]
    prediction = torch.cat([sentences[order], torch.zeros(1, 5)])[None]
    assert ops.match_prototypes(prediction, sentences, offsets(3), backend=backend).tolist() == [[*order, -1]]


@pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="not built")
@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("width", [1, 15, 16, 50, 768])
def test_costs_in_the_library_are_the_references(width, dtype, metric, randn, offsets):
    """PRIOR's shape, and widths around the 16 parallel sums; compares totals, since ties may be broken differently."""
    lengths = (16, 0, 1, 9, 16, 3)
    prediction, target = randn(6, 16, width).detach().to(dtype), randn(sum(lengths), width).detach().to(dtype)
    cu = offsets(*lengths)
    cost = matching_cost(prediction.double(), target.double(), cu, metric)
    found, wanted = (
        ops.match_prototypes(prediction, target, cu, metric=metric, backend=backend) for backend in ("cpp", "scipy")
    )
    for b, n in enumerate(lengths):
        totals = []
        for taken in (found[b], wanted[b]):
            assert sorted(taken[taken >= 0].tolist()) == list(range(n))
            # All padding columns of a row have the same cost; with 16 sentences there is no padding.
            totals.append(sum(cost[b, i, j if j >= 0 else 15].item() for i, j in enumerate(taken.tolist())))
        assert totals[0] == pytest.approx(totals[1], rel=1e-6 if dtype == torch.float32 else 1e-12, abs=1e-6)


@pytest.mark.skipif(extension.unavailable("cpu") is not None, reason="not built")
def test_the_compiled_ops_pass_opcheck(randn, offsets):
    prediction, target = randn(2, 4, 3).detach(), randn(5, 3).detach()
    for cu in (offsets(3, 2), offsets(3, 2).long()):
        for name in ("solve_matching", "match_prototypes"):
            torch.library.opcheck(getattr(torch.ops.prior_fast, name).default, (prediction, target, cu, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_matches_what_is_clear(dtype, rng, offsets):
    """Predictions are the sentences in another order, with noise far below their distance."""
    order = torch.from_numpy(rng.permutation(6))
    sentences = torch.eye(6)
    prediction = torch.zeros(1, 8, 6)
    prediction[0, 1:7] = sentences[order] + 0.01
    for metric in ("l1", "l2", "cosine"):
        taken = ops.match_prototypes(prediction.to(dtype), sentences.to(dtype), offsets(6), metric=metric)
        assert taken.tolist() == [[-1, *order.tolist(), -1]]


def test_near_neighbours_are_told_apart(offsets):
    """Points far from the origin, where |x|^2 + |y|^2 - 2xy would lose the difference in float32."""
    sentences = 1000 + torch.eye(30)
    prediction = sentences.flip(0).unsqueeze(0).contiguous()
    taken = ops.match_prototypes(prediction, sentences, offsets(30), metric="l2")
    assert taken.tolist() == [list(range(29, -1, -1))]


def test_non_contiguous(randn, offsets):
    prediction, target = randn(3, 5, 2).permute(2, 1, 0), randn(3, 4).T
    cu = offsets(3, 1)
    plain = ops.match_prototypes(prediction.contiguous(), target.contiguous(), cu)
    assert torch.equal(ops.match_prototypes(prediction, target, cu), plain)


@pytest.mark.parametrize(("reports", "queries", "sentences"), [(0, 4, 0), (2, 4, 0), (2, 0, 0)])
def test_empty(reports, queries, sentences, offsets):
    taken = ops.match_prototypes(torch.zeros(reports, queries, 3), torch.zeros(sentences, 3), offsets(*[0] * reports))
    assert taken.shape == (reports, queries) and (taken == -1).all()


def test_compiles_to_one_graph(randn, offsets, check_compiled):
    def function(prediction, target, cu_seqlens, x):
        return (ops.match_prototypes(prediction, target, cu_seqlens) * x).sum()

    check_compiled(
        function,
        (randn(2, 6, 5), randn(7, 5), offsets(3, 4), randn(2, 6)),
        (randn(3, 6, 5), randn(9, 5), offsets(3, 0, 6), randn(3, 6)),
    )


def test_the_cost_reads_nothing_back(randn, offsets, no_host_read):
    prediction, target, cu = randn(2, 4, 3), randn(5, 3), offsets(1, 4)
    with no_host_read:
        for metric in ("l1", "l2", "cosine"):
            assert not matching_cost(prediction, target, cu, metric).requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": torch.zeros(4, 3)}, r"prediction has shape \[4, 3\], wanted \[B, Q, D\], 3 dimensions"),
        ({"target": torch.zeros(5, 1)}, r"target has shape \[5, 1\], wanted \[S, D\] with D = 3 as in prediction"),
        ({"target": torch.zeros(5, 3).half()}, r"target has dtype torch.float16, wanted torch.float32"),
        ({"cu_seqlens": torch.tensor([0, 5])}, r"cu_seqlens has shape \[2\], wanted \[3\], for 2 segments"),
        ({"cu_seqlens": torch.tensor([0, 0, 5])}, r"Q, the queries of prediction, is 4, but segment 1 .* has 5 rows"),
        ({"metric": "L1"}, r"metric is 'L1', wanted one of l1, l2, cosine"),
        ({"backend": "triton"}, r"this op has no such backend. can serve: .*scipy, reference"),
        ({"target": torch.full((5, 3), torch.nan)}, r"cost\[0\]: matrix contains invalid numeric entries"),
    ],
)
def test_wrong_arguments(change, message, offsets):
    arguments = {"prediction": torch.zeros(2, 4, 3), "target": torch.zeros(5, 3), "cu_seqlens": offsets(2, 3)} | change
    with pytest.raises(ValueError, match=message):
        ops.match_prototypes(**arguments)
