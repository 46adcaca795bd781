import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast import ops
from prior_fast.ops.common.backend import BackendError
from tests.ops.segment_backends import cpp_dtypes, golden_backends, kernels, needs_library, precisions, threads


def naive(x, lengths):
    return torch.stack([part.mean(dim=0) if len(part) else part.sum(dim=0) for part in x.split(lengths)])


@golden_backends
def test_golden_sentence_gather(golden_case, gradients, offsets):
    """The tokens of file 5 are in the order of their sentences; tokens without a sentence are removed here."""
    file, backend = golden_case("sentence_gather")
    tokens, index = file.leaf("tokens"), file["sentence_index"]
    lengths = [int((row == number).sum()) for row in index for number in row[row > 0].unique()]
    output = ops.segment_mean(tokens[index > 0], offsets(*lengths), backend=backend)
    file.check(output, "avg.output")
    (gradient,) = gradients((output * file["w"][: len(output)].to(output.dtype)).sum(), [tokens])
    file.check(gradient, "avg.g.tokens")


@golden_backends
def test_golden_whole_sequences(golden_case, gradients, offsets):
    file, backend = golden_case("sentence_gather")
    tokens = file.leaf("tokens")
    output = ops.segment_mean(tokens.flatten(0, 1), offsets(40, 40, 40), backend=backend)
    file.check(output, "avg.nobatch.output")
    (gradient,) = gradients((output * file["w"][:3].to(output.dtype)).sum(), [tokens])
    file.check(gradient, "avg.nobatch.g.tokens")


@pytest.mark.parametrize("lengths", [(1,), (3, 1, 7), (0, 2, 0, 0, 5, 0), (0, 0)])
def test_shapes(lengths, randn, offsets, check_equal):
    check_equal(lambda x: ops.segment_mean(x, offsets(*lengths)), lambda x: naive(x, lengths), randn(sum(lengths), 5))


def test_no_segment_and_int64_offsets(randn):
    assert ops.segment_mean(torch.zeros(0, 3), torch.zeros(1, dtype=torch.int64)).shape == (0, 3)


def test_non_contiguous(randn, check_equal):
    cu = torch.tensor([[0, 9], [2, 9], [6, 9]], dtype=torch.int32)[:, 0]
    check_equal(lambda x: ops.segment_mean(x.T, cu), lambda x: naive(x.T, (2, 4)), randn(5, 6))


@precisions
@pytest.mark.parametrize(("lengths", "width"), [((40, 1, 9), 8), ((0, 3, 0, 17), 1), ((5,), 300), ((1, 1), 257)])
def test_precision(lengths, width, backend, randn, offsets, check_precision):
    """Widths below, above and not divisible by a block's; segments likewise for the rows that it takes at once."""
    check_precision(
        lambda x: ops.segment_mean(x, offsets(*lengths), backend=backend),
        lambda x: naive(x, lengths),
        randn(sum(lengths), width),
    )


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(0, 20), max_size=6), width=st.integers(1, 40), int64=st.booleans())
@kernels
def test_any_shape(backend, lengths, width, int64):
    x = torch.randn(width, sum(lengths), generator=torch.Generator().manual_seed(width)).T.requires_grad_()
    cu = torch.tensor([0, *lengths]).cumsum(0).to(torch.int64 if int64 else torch.int32)
    found, wanted = (ops.segment_mean(x, cu, backend=backend) for backend in (backend, "reference"))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0))
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)


def test_passes_opcheck(randn, offsets):
    x = randn(5, 3).detach().float().requires_grad_()
    torch.library.opcheck(torch.ops.prior_fast.segment_mean.default, (x, offsets(2, 0, 3)))
    torch.library.opcheck(torch.ops.prior_fast.segment_mean_backward.default, (torch.randn(3, 4), offsets(2, 0, 3), 5))


@needs_library
def test_cpp_passes_opcheck(randn, offsets):
    OPS = torch.ops.prior_fast
    for dtype in (torch.float32, torch.bfloat16):
        x, dy = torch.randn(5, 3, dtype=dtype), torch.randn(3, 4, dtype=dtype)
        torch.library.opcheck(OPS.segment_mean_cpp.default, (x, offsets(2, 0, 3)))
        torch.library.opcheck(OPS.segment_mean_cpp_backward.default, (dy, offsets(2, 0, 3), 5))


def test_gradcheck(randn, offsets):
    assert torch.autograd.gradcheck(lambda x: ops.segment_mean(x, offsets(2, 0, 3)), (randn(5, 2),))


def test_compiles_to_one_graph(randn, offsets, check_compiled):
    check_compiled(ops.segment_mean, (randn(7, 4), offsets(3, 4)), (randn(9, 4), offsets(3, 2, 4)))


@kernels
def test_kernels_compile_to_one_graph(backend, randn, offsets, check_compiled):
    def function(x, cu):
        y = ops.segment_mean(x.float(), cu, backend=backend)
        return (y + ops.segment_mean(2 * x.float(), cu, backend=backend)).double()

    check_compiled(function, (randn(7, 4), offsets(3, 4)), (randn(9, 4), offsets(3, 2, 4)))


def output_and_gradient(x, cu):
    """By the C++ kernels; the gradient is of a sum weighted by fixed numbers."""
    x = x.detach().requires_grad_()
    y = ops.segment_mean(x, cu, backend="cpp")
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y.dtype)
    return [y, *torch.autograd.grad((y * weights).sum(), x)]


@needs_library
@cpp_dtypes
def test_threads_change_no_bit(dtype, randn, offsets):
    """Sizes of which each of two threads takes a part: short and empty segments, and one with most of the rows."""
    x, cu = randn(400, 301).to(dtype), offsets(0, 3, 1, 0, 310, 0, 40, 46, 0)
    with threads(1):
        one = output_and_gradient(x, cu)
    with threads(2):
        two = output_and_gradient(x, cu)
    assert all(map(torch.equal, one, two))


@needs_library
@cpp_dtypes
def test_strided_rows(dtype, randn, offsets):
    """Rows that are far apart, columns that are, and every second offset."""
    wide, cu = randn(30, 100).to(dtype), offsets(7, 0, 8)
    every_second = torch.stack([cu, cu + 1], dim=1)[:, 0]
    for view in (wide[::2, 10:77], wide[:15, ::2], wide.T[20:35]):
        wanted = output_and_gradient(view.contiguous(), cu)
        assert not view.is_contiguous()
        assert all(map(torch.equal, output_and_gradient(view, every_second), wanted))


@needs_library
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_cpp_comes_first_for_the_dtypes_that_it_takes(dtype, offsets):
    cu, name = offsets(1), str(dtype).removeprefix("torch.")
    for taken in (torch.float32, torch.bfloat16):
        with pytest.raises(BackendError) as caught:
            ops.segment_mean(torch.zeros(1, 2, dtype=taken), cu, backend="?")
        assert list(caught.value.available) == ["cpp", "reference", "triton"] and caught.value.available["cpp"] is None
    with pytest.raises(BackendError, match=f"cpp: it takes float32 and bfloat16, not {name}"):
        ops.segment_mean(torch.zeros(1, 2, dtype=dtype), cu, backend="cpp")


def test_reads_nothing_back(randn, offsets, no_host_read):
    x, cu = randn(5, 3), offsets(2, 0, 3)
    with no_host_read:
        ops.segment_mean(x, cu).sum().backward()


@pytest.mark.parametrize(
    ("x", "cu", "message"),
    [
        (torch.zeros(4), [0, 4], r"x has shape \[4\], wanted \[T, D\], 2 dimensions"),
        (torch.zeros(4, 2), [0, 3], r"cu_seqlens ends at 3, wanted 4, the rows of x"),
        (torch.zeros(4, 2), [], r"cu_seqlens has shape \[0\], wanted \[B\+1\]"),
        (torch.zeros(4, 2, dtype=torch.int64), [0, 4], r"x has dtype torch.int64, wanted one of float32"),
    ],
)
def test_wrong_arguments(x, cu, message):
    with pytest.raises(ValueError, match=message):
        ops.segment_mean(x, torch.tensor(cu, dtype=torch.int32))
