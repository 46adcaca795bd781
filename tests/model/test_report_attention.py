"""Attention within packed reports equals dense attention with a mask, gradients included."""

import numpy as np
import pytest
import torch
from torch import Tensor

from prior_fast.model.report_attention import _report_attention, report_attention
from prior_fast.model.text_encoder import padded_attention

LENGTHS = [[5], [1], [1, 1, 3], [7, 2, 31, 16], [33, 1, 64], [0, 4, 0, 4, 9, 0]]


def inputs(
    rng: np.random.Generator, lengths: list[int], dtype: torch.dtype = torch.float64, filler: int = 0
) -> tuple[list[Tensor], Tensor]:
    cu = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    shape = (sum(lengths) + filler, 3, 8)
    return [torch.from_numpy(rng.standard_normal(shape)).to(dtype).requires_grad_() for _ in range(3)], cu


def dense(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, scale: float) -> Tensor:
    """Attention over all pairs of tokens, with pairs of different reports masked."""
    report = torch.repeat_interleave(torch.arange(len(cu) - 1), cu.diff())
    scores = torch.einsum("thd,shd->hts", q, k) * scale
    scores = scores.masked_fill(report[:, None] != report[None], float("-inf"))
    return torch.einsum("hts,shd->thd", scores.softmax(dim=2), v)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("function", ["report", "padded"])
def test_equals_dense_attention(rng: np.random.Generator, lengths: list[int], function: str) -> None:
    (q, k, v), cu = inputs(rng, lengths)
    dout = torch.from_numpy(rng.standard_normal(v.shape))
    scale = 0.3 if function == "report" else q.shape[-1] ** -0.5
    expected = dense(q, k, v, cu, scale)
    gradients = torch.autograd.grad(expected, (q, k, v), dout)
    if function == "report":
        out = report_attention(q, k, v, cu, scale)
    else:
        out = padded_attention(q, k, v, cu, max(lengths))
    assert (out - expected).abs().max() < 1e-12
    for got, wanted in zip(torch.autograd.grad(out, (q, k, v), dout), gradients):
        assert (got - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("pairs", [1, 50, 300, 10**9])
def test_the_size_of_groups_does_not_change_the_result(
    rng: np.random.Generator, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [0, *rng.integers(1, 20, 23).tolist(), 0]
    (q, k, v), cu = inputs(rng, lengths, filler=3)
    dout = torch.from_numpy(rng.standard_normal(v.shape))
    expected = dense(q, k, v, torch.cat([cu, cu[-1:] + 3]), 0.4)
    gradients = torch.autograd.grad(expected[:-3], (q, k, v), dout[:-3])
    monkeypatch.setattr("prior_fast.model.report_attention.PAIRS", pairs)
    out = report_attention(q, k, v, cu, 0.4)
    assert (out[:-3] - expected[:-3]).abs().max() < 1e-12 and (out[-3:] == 0).all()
    for got, wanted in zip(torch.autograd.grad(out, (q, k, v), dout), gradients):
        assert (got - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_error_is_that_of_the_dtype(rng: np.random.Generator, dtype: torch.dtype) -> None:
    (q, k, v), cu = inputs(rng, [40, 3, 21], dtype)
    dout = torch.from_numpy(rng.standard_normal(v.shape)).to(dtype)
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = dense(*exact, cu, 0.35)
    plain = dense(q, k, v, cu, 0.35)
    out = report_attention(q, k, v, cu, 0.35)
    assert out.dtype == dtype
    pairs = [(out, plain, expected)]
    results = (torch.autograd.grad(x, y, dout.to(x.dtype)) for x, y in ((out, (q, k, v)), (plain, (q, k, v))))
    pairs += zip(*results, torch.autograd.grad(expected, exact, dout.double()))
    for got, yardstick, truth in pairs:
        rounding = torch.finfo(dtype).eps * truth.abs().max()
        assert (got - truth).abs().max() <= 2 * (yardstick - truth).abs().max() + rounding


def test_large_scores_do_not_overflow(rng: np.random.Generator) -> None:
    (q, k, v), cu = inputs(rng, [9, 4], torch.float32)
    out = report_attention(q * 1e3, k * 1e3, v, cu, 1.0)
    exact = dense(q.double() * 1e3, k.double() * 1e3, v.double(), cu, 1.0)
    assert (out - exact).abs().max() < 1e-3
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), (q, k, v)))


def test_filler_is_zero_and_gets_no_gradient(rng: np.random.Generator) -> None:
    (q, k, v), cu = inputs(rng, [4, 6], filler=5)
    out = report_attention(q, k, v, cu, 0.3)
    assert (out[10:] == 0).all()
    expected = dense(*(x[:10] for x in (q, k, v)), cu, 0.3)
    assert (out[:10] - expected).abs().max() < 1e-12
    for gradient in torch.autograd.grad(out, (q, k, v), torch.ones_like(out)):
        assert (gradient[10:] == 0).all()
        assert gradient[:10].abs().max() > 0


def test_strided_views_and_an_empty_report(rng: np.random.Generator) -> None:
    (q, k, v), cu = inputs(rng, [6, 0, 3])
    views = [x.permute(2, 0, 1).contiguous().permute(1, 2, 0) for x in (q, k, v)]
    assert not views[0].is_contiguous()
    assert (report_attention(*views, cu, 0.5) - dense(q, k, v, cu, 0.5)).abs().max() < 1e-12


def test_opcheck(rng: np.random.Generator) -> None:
    (q, k, v), cu = inputs(rng, [3, 5], torch.float32, filler=2)
    torch.library.opcheck(_report_attention, (q, k, v, cu, 0.3))
