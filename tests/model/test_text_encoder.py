"""BERT over packed reports: a report attends only to itself, on CPU and GPU. test_bert.py compares the values."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from prior_fast.batch import pack_reports
from prior_fast.config import TextEncoderConfig
from prior_fast.model.text_encoder import TextEncoder, attend_within_reports, padded_attention

SIZES = TextEncoderConfig(weights="random", hidden_size=48, layers=3, heads=4, intermediate_size=96, dropout=0.0)


def reports(rng: np.random.Generator, lengths: list[list[int]]) -> list[list[np.ndarray]]:
    return [[rng.integers(4, 90, size=n) for n in sentences] for sentences in lengths]


@pytest.mark.gpu
@pytest.mark.parametrize("lengths", [[1], [200, 1, 17], [90] * 64, [128, 129]])
def test_packed_attention_on_a_gpu_errs_as_padded_does(rng: np.random.Generator, lengths: list[int]) -> None:
    """Output and gradients in bfloat16 against float64: at most twice the error of padding, plus a rounding."""
    torch.manual_seed(int(rng.integers(1 << 30)))
    cu = torch.tensor([0, *lengths]).cumsum(0).int().cuda()
    inputs = torch.randn(3, sum(lengths), 12, 64, device="cuda").bfloat16()
    dout = torch.randn(sum(lengths), 12, 64, device="cuda").bfloat16()

    def results(x: torch.Tensor, attend: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        leaves = [part.detach().requires_grad_() for part in x]
        out = attend(*leaves)
        return [part.double() for part in (out, *torch.autograd.grad(out, leaves, dout.to(out.dtype)))]

    def packed(*parts: torch.Tensor) -> torch.Tensor:
        return attend_within_reports(torch.stack(parts, dim=1), cu, max(lengths))

    padded = partial(padded_attention, cu_tokens=cu, max_tokens=max(lengths))
    for found, plain, wide in zip(results(inputs, packed), results(inputs, padded), results(inputs.double(), padded)):
        allowed = 2 * (plain - wide).norm() + 2**-8 * wide.norm()
        assert (found - wide).norm() <= allowed


def test_a_report_does_not_see_another(rng: np.random.Generator) -> None:
    encoder = TextEncoder(SIZES, vocab_size=90).double()
    names = ("token_ids", "position_ids", "cu_tokens", "max_tokens")
    texts = reports(rng, [[4, 4], [3, 5, 2]])
    alone = pack_reports(texts[:1], 2, 3)
    both = pack_reports(texts, 2, 3)
    a = encoder(*(getattr(alone, name) for name in names))
    b = encoder(*(getattr(both, name) for name in names))
    assert (a - b[:10]).abs().max() < 1e-12
