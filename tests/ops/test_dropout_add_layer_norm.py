"""Against plain PyTorch in float64 with the same mask: outputs, every gradient, and the mask's contract."""

import pytest
import torch
from torch.nn import functional as F

from prior_fast import ops
from prior_fast.ops.common.philox import philox_uint32

WIDTHS = [1, 50, 100, 180, 768, 1024, 3072]
SEED, STREAM = -(2**62) + 12345, 7


def mask(rows, columns, dropout, seed=SEED, stream=STREAM):
    """What the contract keeps, one element after the other."""
    groups = -(-columns // 4)
    kept = torch.empty(rows, columns, dtype=torch.bool)
    words = philox_uint32(seed, torch.arange(rows * groups), stream)
    for column in range(columns):
        word = words[column % 4].view(rows, groups)[:, column // 4]
        kept[:, column] = word >> 8 >= round(dropout * 2**24)
    return kept


def naive(x, residual, weight, bias, linear_bias, dropout, eps):
    added = x if linear_bias is None else x + linear_bias
    if dropout:
        kept = mask(x.numel() // x.shape[-1], x.shape[-1], dropout).view(x.shape)
        added = added * kept / (1 - dropout)
    return F.layer_norm(added + residual, weight.shape, weight, bias, eps)


def draw(rows, columns, dtype, residual_dtype, seed=0, with_linear=True):
    generator = torch.Generator().manual_seed(seed)
    x, residual, dy, dlow = (torch.randn(rows, columns, generator=generator) for _ in range(4))
    vectors = [torch.randn(columns, generator=generator).requires_grad_() for _ in range(3)]
    if not with_linear:
        vectors[2] = None
    leaves = [x.to(dtype).requires_grad_(), residual.to(residual_dtype).requires_grad_(), *vectors]
    return leaves, dy.to(residual_dtype), dlow.to(dtype)


def check(leaves, dy, dlow, dropout, backend, eps=1e-12, absolute=0.0):
    """Compare with float64 to a rounding of each result's dtype, or of float32 sums; dy or dlow may be None."""
    found = ops.dropout_add_layer_norm(*leaves, eps=eps, dropout=dropout, seed=SEED, stream=STREAM, backend=backend)
    assert [y.dtype for y in found] == [leaves[1].dtype, leaves[0].dtype]
    given = [(y, g) for y, g in zip(found, (dy, dlow)) if g is not None]
    wanted_leaves = [None if x is None else x.detach().double().requires_grad_() for x in leaves]
    truth = naive(*wanted_leaves, dropout, eps)
    inputs, truth_inputs = ([x for x in some if x is not None] for some in (leaves, wanted_leaves))
    gradients = torch.autograd.grad([y for y, _ in given], inputs, [g for _, g in given])
    # One tensor as both outputs gets one gradient, which torch adds in its dtype.
    together = [sum(g for _, g in given)] if found[0] is found[1] else [g for _, g in given]
    wanted = torch.autograd.grad(truth, truth_inputs, sum(g.double() for g in together))
    for actual, true in zip((*found, *gradients), (truth, truth, *wanted), strict=True):
        # A sum over a row or over all rows: a random walk of float32 roundings.
        roundings = torch.finfo(actual.dtype).eps + 8 * torch.finfo(torch.float32).eps
        error = (actual.double() - true).abs().max().item()
        assert error <= roundings * true.abs().max().item() + absolute


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("columns", WIDTHS)
def test_triton_with_a_float32_stream(columns, dropout):
    for rows in (1, 17) if columns < 1024 else (3,):
        # A row of one column is its own mean: every gradient of x is 0, to float32's roundings of 1 / sqrt(eps).
        check(*draw(rows, columns, torch.bfloat16, torch.float32), dropout, "triton", 1e-5, 1e-4 * (columns == 1))


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize(
    ("dtype", "residual_dtype"),
    [(torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32), (torch.float32, torch.float32)],
    ids=str,
)
def test_dtypes(dtype, residual_dtype, backend):
    for columns in (50, 768):
        check(*draw(5, columns, dtype, residual_dtype), 0.1, backend)


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_without_a_linear_bias(backend):
    check(*draw(5, 100, torch.bfloat16, torch.float32, with_linear=False), 0.1, backend)


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_the_gradient_of_one_output(backend):
    leaves, dy, dlow = draw(5, 100, torch.bfloat16, torch.float32)
    check(leaves, dy, None, 0.1, backend)
    check(leaves, None, dlow, 0.1, backend)


def test_half_the_stream_is_one_tensor():
    leaves, *_ = draw(5, 40, torch.bfloat16, torch.bfloat16)
    for backend in ("reference", "triton"):
        y, low = ops.dropout_add_layer_norm(*leaves, backend=backend)
        assert y is low


def test_rows_that_lie_apart():
    """Inputs and gradients that are transposed, with two batch dimensions."""
    generator = torch.Generator().manual_seed(1)
    x, residual, dy = (torch.randn(40, 6, 4, generator=generator).transpose(0, 2) for _ in range(3))
    vectors = [torch.randn(80, generator=generator)[::2] for _ in range(3)]
    leaves = [x.bfloat16(), residual, *vectors]
    assert not any(t.is_contiguous() for t in leaves)
    check([t.requires_grad_() for t in leaves], dy, dy.bfloat16(), 0.1, "triton")


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("columns", [1, 50, 768])
def test_rows_of_equal_values(columns, backend):
    """Their variance is 0 and eps is BERT's 1e-12: nothing may remain of the mean's rounding, whatever it is times."""
    values = torch.tensor([0.1, -3.3, 1000.7])[:, None].expand(3, columns).bfloat16()
    residual = torch.tensor([0.7, 1.1, -7.7])[:, None].expand(3, columns)
    weight, bias = torch.ones(columns), torch.arange(columns) / columns
    y, _ = ops.dropout_add_layer_norm(values, residual, weight, bias, backend=backend)
    # The sum of two numbers is rounded once, the same in every column.
    torch.testing.assert_close(y, bias.expand(3, columns), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_large_means(backend):
    """A mean of a thousand deviations costs its digits in float32, and no more."""
    leaves, dy, dlow = draw(7, 768, torch.bfloat16, torch.float32)
    with torch.no_grad():
        leaves[1] += 1000
    check(leaves, dy, dlow, 0.0, backend, absolute=1e-3)


def test_the_mask_is_the_contract():
    """The reference's, and the kernel's where its element is the only large one."""
    x = torch.full((9, 50), 100.0).requires_grad_()
    kept = mask(9, 50, 0.3)
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.06)
    for backend in ("reference", "triton"):
        y, _ = ops.dropout_add_layer_norm(
            x,
            torch.zeros(9, 50),
            torch.ones(50),
            torch.zeros(50),
            dropout=0.3,
            seed=SEED,
            stream=STREAM,
            backend=backend,
        )
        assert torch.equal(y > 0, kept)
        (gradient,) = torch.autograd.grad((y * torch.randn(9, 50)).sum(), x)
        assert not gradient[~kept].any()
        assert gradient[kept].all()


def test_streams_and_seeds_are_independent():
    masks = [mask(40, 50, 0.5, seed, stream) for seed in (1, 2) for stream in (0, 1, 16)]
    for number, one in enumerate(masks):
        for other in masks[:number]:
            assert (one == other).float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_many_programs_share_the_rows(monkeypatch):
    from prior_fast.kernels import dropout_add_layer_norm as kernels

    for tiles in (kernels.Tiles(4, 4, 3), kernels.Tiles(1, 1, 70), kernels.Tiles(8, 4, 1)):
        for name in ("forward_tiles", "backward_tiles"):
            monkeypatch.setattr(kernels, name, lambda rows, columns, tiles=tiles: tiles)
        check(*draw(75, 20, torch.bfloat16, torch.float32), 0.1, "triton")


def test_no_row():
    leaves, *_ = draw(0, 20, torch.bfloat16, torch.float32)
    y, low = ops.dropout_add_layer_norm(*leaves, backend="triton")
    assert y.shape == low.shape == (0, 20)
    gradients = torch.autograd.grad(y.sum(), leaves)
    assert all(not g.any() for g in gradients[2:])


def test_gradcheck(randn):
    def function(*floats):
        return ops.dropout_add_layer_norm(*floats, dropout=0.2, seed=3)[0]

    assert torch.autograd.gradcheck(function, (randn(3, 6), randn(3, 6), randn(6), randn(6), randn(6)))


def test_passes_opcheck():
    leaves, dy, dlow = draw(3, 5, torch.bfloat16, torch.float32)
    seed = torch.tensor(3)
    forward = torch.ops.prior_fast.dropout_add_layer_norm.default
    torch.library.opcheck(forward, (*leaves, seed, 2, 0.1, 1e-12))
    torch.library.opcheck(forward, (leaves[1], leaves[1], *leaves[2:4], None, None, 0, 0.0, 1e-12))
    torch.library.opcheck(torch.ops.prior_fast.dropout_kept.default, (seed, 3, 5, 1000, 2))
    x, residual, weight, _, linear = (t.detach() for t in leaves)
    saved = (x, residual, weight, linear, seed, torch.ones(2, 3), 2, 0.1)
    torch.library.opcheck(torch.ops.prior_fast.dropout_add_layer_norm_backward.default, (dy, dlow, *saved))


def test_triton_compiles_to_one_graph(randn, check_compiled):
    def function(seed, *floats):
        x, *others = (t.float() for t in floats)
        y, low = ops.dropout_add_layer_norm(x.bfloat16(), *others, dropout=0.1, seed=seed, backend="triton")
        return y.double() + low.double()

    cases = ((torch.tensor(n), randn(n, 4), randn(n, 4), randn(4), randn(4), randn(4)) for n in (7, 9))
    check_compiled(function, *cases)


def test_reads_nothing_back(no_host_read):
    leaves, *_ = draw(3, 5, torch.bfloat16, torch.float32)
    with no_host_read:
        ops.dropout_add_layer_norm(*leaves, dropout=0.1, seed=torch.tensor(3))[0].sum().backward()


X, ONES = torch.zeros(2, 3), torch.ones(3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            (torch.zeros(2, 0), X, ONES, ONES),
            {},
            r"x has shape \[2, 0\], wanted \[\.\.\., C\] with at least one column",
        ),
        ((X, X[:1], ONES, ONES), {}, r"residual has shape \[1, 3\], wanted \[2, 3\], the shape of x"),
        ((X, X.half(), ONES, ONES), {}, r"residual has dtype torch.float16, wanted one of float32"),
        ((X, X, ONES[:2], ONES), {}, r"weight has shape \[2\], wanted \[C\] with C = 3 as in x"),
        ((X, X, ONES, ONES, ONES.double()), {}, r"linear_bias has dtype torch.float64, wanted one of float32"),
        ((X, X, ONES, ONES), {"dropout": 1.0}, r"dropout is 1.0, wanted 0 or more and less than 1"),
        ((X, X, ONES, ONES), {"dropout": 0.1}, r"dropout is 0.1, but seed is None: pass a seed"),
        (
            (X, X, ONES, ONES),
            {"dropout": 0.1, "seed": torch.zeros(2).long()},
            r"seed has shape \[2\], wanted one element",
        ),
        (
            (X, X, ONES, ONES),
            {"dropout": 0.1, "seed": 2**63},
            r"seed is 9223372036854775808, wanted a number that int64",
        ),
        ((X, X, ONES, ONES), {"stream": -1}, r"stream is -1, wanted 0 or more"),
    ],
)
def test_wrong_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        ops.dropout_add_layer_norm(*arguments, **options)
