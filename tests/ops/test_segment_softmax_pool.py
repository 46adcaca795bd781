import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast import ops
from tests.ops.segment_backends import (
    backends,
    cpp_dtypes,
    golden_backends,
    kernels,
    needs_library,
    precisions_of_kernels,
    threads,
)


def naive(x, scores, lengths):
    parts = zip(x.split(lengths), scores.split(lengths), strict=True)
    return torch.stack([(s.softmax(dim=0).unsqueeze(1) * rows).sum(dim=0) for rows, s in parts])


def both(x, scores, cu, *backends):
    """Output and gradients of a weighted sum, with each backend."""
    results = []
    for backend in backends:
        y = ops.segment_softmax_pool(x, scores, cu, backend=backend)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
        results.append([y, *torch.autograd.grad((y * weights).sum(), [x, scores])])
    return results


@golden_backends
@pytest.mark.parametrize("case", ["attention", "attention.nobatch"])
def test_golden_sentence_gather(case, golden_case, gradients, offsets):
    """Scores e_i = q_i . sum_j k_j over the sentence (or, without a batch, over the whole sequence)."""
    file, backend = golden_case("sentence_gather")
    tokens, p = file.leaf("tokens"), file.parameters("p.attention_pool.")
    index = file["sentence_index"] if case == "attention" else torch.ones(3, 40, dtype=torch.int64)
    lengths = [int((row == number).sum()) for row in index for number in row[row > 0].unique()]
    rows, cu = tokens[index > 0], offsets(*lengths)
    q, k = (rows @ p[f"{name}.weight"].T + p[f"{name}.bias"] for name in ("query", "key"))
    counts = torch.tensor(lengths)
    sums = (ops.segment_mean(k, cu) * counts.unsqueeze(1)).repeat_interleave(counts, dim=0)
    output = ops.segment_softmax_pool(rows, (q * sums).sum(dim=1), cu, backend=backend)
    file.check(output, f"{case}.output")
    found = gradients((output * file["w"][: len(output)].to(output.dtype)).sum(), [tokens, *p.values()])
    for name, gradient in zip(["tokens", *(f"p.attention_pool.{name}" for name in p)], found, strict=True):
        file.check(gradient, f"{case}.g.{name}")


@pytest.mark.parametrize("lengths", [(1,), (3, 1, 7), (0, 2, 0, 0, 5, 0), (0, 0)])
def test_shapes(lengths, randn, offsets, check_equal):
    check_equal(
        lambda x, scores: ops.segment_softmax_pool(x, scores, offsets(*lengths)),
        lambda x, scores: naive(x, scores, lengths),
        randn(sum(lengths), 5),
        randn(sum(lengths)),
    )


@backends
def test_large_scores_stay_finite(backend, offsets, gradients):
    """The segments' maxima are 1e4 apart, so no common shift works for all."""
    x = torch.eye(4, requires_grad=True)
    scores = torch.tensor([1e4, 1e4 + 1, -1e4, -1e4], requires_grad=True)
    output = ops.segment_softmax_pool(x, scores, offsets(2, 2), backend=backend)
    torch.testing.assert_close(output, torch.tensor([[0.26894142, 0.73105858, 0, 0], [0, 0, 0.5, 0.5]]))
    assert all(g.isfinite().all() for g in gradients(output.sum(), [x, scores]))


def test_non_contiguous(randn, offsets, check_equal):
    check_equal(
        lambda x, scores: ops.segment_softmax_pool(x.T, scores[::2], offsets(2, 4)),
        lambda x, scores: naive(x.T, scores[::2], (2, 4)),
        randn(5, 6),
        randn(12),
    )


def test_precision(randn, offsets, check_precision):
    lengths = (40, 1, 9)
    check_precision(
        lambda x, scores: ops.segment_softmax_pool(x, scores, offsets(*lengths)),
        lambda x, scores: naive(x, scores, lengths),
        randn(50, 8),
        randn(50),
    )


@pytest.mark.parametrize(
    ("lengths", "width", "spread"),
    [
        ((40, 1, 9), 8, 1.0),
        ((0, 3, 0, 17), 1, 1.0),
        ((5, 16, 8), 300, 1.0),  # rows in whole blocks and not, columns in two blocks
        ((1, 1), 257, 1.0),
        ((12, 25), 20, 30.0),  # weights near 0 and 1
        ((9,), 7, 0.01),
    ],
)
@precisions_of_kernels
def test_precision_of_kernels(backend, lengths, width, spread, randn, offsets, check_precision):
    check_precision(
        lambda x, scores: ops.segment_softmax_pool(x, scores, offsets(*lengths), backend=backend),
        lambda x, scores: naive(x, scores, lengths),
        randn(sum(lengths), width),
        spread * randn(sum(lengths)),
    )


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(0, 20), max_size=5), width=st.integers(1, 40), int64=st.booleans())
@kernels
def test_any_shape(backend, lengths, width, int64):
    generator = torch.Generator().manual_seed(width)
    x = torch.randn(width, sum(lengths), generator=generator).T.requires_grad_()
    scores = (3 * torch.randn(sum(lengths), 2, generator=generator))[:, 1].requires_grad_()
    cu = torch.tensor([0, *lengths]).cumsum(0).to(torch.int64 if int64 else torch.int32)
    for found, wanted in zip(*both(x, scores, cu, backend, "reference"), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@kernels
def test_kernels_are_the_same_in_every_run(backend, randn, offsets):
    """Also under the caller's autocast."""
    x, scores = (t.detach().float().requires_grad_() for t in (randn(12, 5), randn(12)))
    (first,) = both(x, scores, offsets(3, 9), backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (second,) = both(x, scores, offsets(3, 9), backend)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@kernels
def test_kernels_give_one_row_to_itself(backend, randn, offsets, gradients):
    x, scores = (t.detach().float().requires_grad_() for t in (randn(2, 5), 100 * randn(2)))
    output = ops.segment_softmax_pool(x, scores, offsets(1, 0, 1), backend=backend)
    assert torch.equal(output, torch.stack([x[0], torch.zeros(5), x[1]]))
    assert not gradients((output * randn(3, 5).float()).sum(), [scores])[0].any()


def test_passes_opcheck(randn, offsets):
    x, scores = (t.detach().float().requires_grad_() for t in (randn(5, 3), randn(5)))
    torch.library.opcheck(torch.ops.prior_fast.segment_softmax_pool.default, (x, scores, offsets(2, 0, 3)))
    arguments = (torch.randn(3, 3), x.detach(), scores.detach(), offsets(2, 0, 3))
    torch.library.opcheck(torch.ops.prior_fast.segment_softmax_pool_backward.default, arguments)


@needs_library
@cpp_dtypes
def test_cpp_passes_opcheck(dtype, randn, offsets):
    x, scores, dy, cu = *(t.detach().to(dtype) for t in (randn(5, 3), randn(5), randn(3, 3))), offsets(2, 0, 3)
    torch.library.opcheck(torch.ops.prior_fast.segment_softmax_pool_cpp.default, (x, scores, cu))
    torch.library.opcheck(torch.ops.prior_fast.segment_softmax_pool_cpp_backward.default, (dy, x, scores, cu))


@needs_library
@cpp_dtypes
def test_threads_change_no_bit(dtype, randn, offsets):
    """Sizes of which each of two threads takes a part: short and empty segments, and one with most of the rows."""
    x, scores = (t.detach().to(dtype).requires_grad_() for t in (randn(400, 301), randn(400)))
    cu, results = offsets(0, 3, 1, 0, 310, 0, 40, 46, 0), []
    for count in (1, 2):
        with threads(count):
            results += both(x, scores, cu, "cpp")
    assert all(map(torch.equal, *results))


@needs_library
@cpp_dtypes
def test_strided_rows(dtype, randn, offsets):
    """Rows that are far apart, columns that are, every second score and every second offset."""
    wide, scores, cu = randn(30, 100).detach().to(dtype), randn(15, 2).detach().to(dtype)[:, 1], offsets(7, 0, 8)
    every_second = torch.stack([cu, cu + 1], dim=1)[:, 0]
    for view in (wide[::2, 10:77], wide[:15, ::2], wide.T[20:35]):
        (wanted,) = both(view.contiguous().requires_grad_(), scores.contiguous().requires_grad_(), cu, "cpp")
        x, s = view.detach().requires_grad_(), scores.detach().requires_grad_()
        assert not x.is_contiguous() and not s.is_contiguous()
        assert all(map(torch.equal, both(x, s, every_second, "cpp")[0], wanted))


def test_gradcheck(randn, offsets):
    function = lambda x, scores: ops.segment_softmax_pool(x, scores, offsets(2, 0, 3))  # noqa: E731
    assert torch.autograd.gradcheck(function, (randn(5, 2), randn(5)))


def test_compiles_to_one_graph(randn, offsets, check_compiled):
    cases = ((3, 4), (3, 2, 4))
    check_compiled(ops.segment_softmax_pool, *((randn(sum(n), 4), randn(sum(n)), offsets(*n)) for n in cases))


@kernels
def test_kernels_compile_to_one_graph(backend, randn, offsets, check_compiled):
    def function(x, scores, cu):
        y = ops.segment_softmax_pool(x.float(), scores.float(), cu, backend=backend)
        return (y + ops.segment_softmax_pool(2 * x.float(), -scores.float(), cu, backend=backend)).double()

    check_compiled(function, *((randn(sum(n), 4), randn(sum(n)), offsets(*n)) for n in ((3, 4), (3, 2, 4))))


def test_reads_nothing_back(randn, offsets, no_host_read):
    x, scores, cu = randn(5, 3), randn(5), offsets(2, 0, 3)
    with no_host_read:
        ops.segment_softmax_pool(x, scores, cu).sum().backward()


@pytest.mark.parametrize(
    ("scores", "cu", "message"),
    [
        (torch.zeros(4, 1), [0, 4], r"scores has shape \[4, 1\], wanted \[T\], 1 dimensions"),
        (torch.zeros(1), [0, 4], r"scores has shape \[1\], wanted \[T\] with T = 4 as in x"),
        (torch.zeros(4).double(), [0, 4], r"scores has dtype torch.float64, wanted torch.float32, the dtype of x"),
        (torch.zeros(4), [0, 5], r"cu_seqlens ends at 5, wanted 4, the rows of x"),
    ],
)
def test_wrong_arguments(scores, cu, message):
    with pytest.raises(ValueError, match=message):
        ops.segment_softmax_pool(torch.zeros(4, 2), scores, torch.tensor(cu, dtype=torch.int32))
