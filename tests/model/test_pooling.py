"""The pools with one query against multi-head attention with all of them; pooling and projecting in either order."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior_fast.model.image_encoder import AttentionPool2d
from prior_fast.model.pooling import SentenceAttentionPool
from prior_fast.ops.segment_mean import segment_mean

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


def full_attention(pool: nn.Module, rows: Tensor) -> Tensor:
    """Every row [L, C] attends to all rows: [L, C], as CLIP's pool calls torch's own multi-head attention."""
    names = ("q_proj", "k_proj", "v_proj")
    weights = {f"{name}_weight": getattr(pool, name).weight for name in names}
    bias = torch.cat([getattr(pool, name).bias for name in names])
    out, _ = F.multi_head_attention_forward(
        rows[:, None], rows[:, None], rows[:, None], rows.shape[1], pool.num_heads, None, bias, None, None, False, 0.0,
        pool.c_proj.weight, pool.c_proj.bias, use_separate_proj_weight=True, need_weights=False, **weights,
    )  # fmt: skip
    return out[:, 0]


def compare(pool: nn.Module, x: Tensor, ours: Tensor, plain: Tensor, rng: np.random.Generator) -> None:
    """Compare outputs and all gradients."""
    tolerance = TOLERANCE[ours.dtype]
    torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)
    weight = torch.tensor(rng.standard_normal(ours.shape), dtype=ours.dtype)
    wanted = [x, *pool.parameters()]
    got = torch.autograd.grad((ours * weight).sum(), wanted)
    expected = torch.autograd.grad((plain * weight).sum(), wanted)
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b, rtol=20 * tolerance, atol=20 * tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("heads", [1, 4])
def test_report_pool(heads: int, dtype: torch.dtype, rng: np.random.Generator) -> None:
    torch.manual_seed(1)
    pool = SentenceAttentionPool(32, heads).to(dtype)
    lengths = [1, 5, 2, 16]
    cu = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    x = torch.tensor(rng.standard_normal((sum(lengths), 32)), dtype=dtype, requires_grad=True)
    ours = pool(x, cu, max(lengths))
    plain = [full_attention(pool, torch.cat([part.mean(0, keepdim=True), part]))[0] for part in x.split(lengths)]
    compare(pool, x, ours, torch.stack(plain), rng)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("heads", [1, 4])
def test_image_pool(heads: int, dtype: torch.dtype, rng: np.random.Generator) -> None:
    torch.manual_seed(1)
    pool = AttentionPool2d(7, 32, heads).to(dtype)
    x = torch.tensor(rng.standard_normal((3, 32, 7, 7)), dtype=dtype, requires_grad=True)
    plain = []
    for image in x.flatten(2).mT:
        rows = torch.cat([image.mean(0, keepdim=True), image]) + pool.positional_embedding
        plain.append(full_attention(pool, rows)[0])
    compare(pool, x, pool(x), torch.stack(plain), rng)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_pooling_before_a_linear_projection_is_pooling_after_it(dtype: torch.dtype, rng: np.random.Generator) -> None:
    torch.manual_seed(1)
    projection = nn.Linear(32, 16).to(dtype)
    cu = torch.tensor([0, 3, 4, 11], dtype=torch.int32)
    x = torch.tensor(rng.standard_normal((11, 32)), dtype=dtype, requires_grad=True)
    compare(projection, x, projection(segment_mean(x, cu)), segment_mean(projection(x), cu), rng)
