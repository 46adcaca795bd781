"""BERT over packed reports equals BERT over padded ones."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import BertModel

from prior_fast.config import TextEncoderConfig
from prior_fast.data.batch import pack_reports
from prior_fast.errors import UsageError
from prior_fast.model.text_encoder import TextEncoder, packed_attention, padded_attention

SIZES = TextEncoderConfig(weights="random", hidden_size=48, layers=3, heads=4, intermediate_size=96, dropout=0.0)


def reports(rng: np.random.Generator, lengths: list[list[int]]) -> list[list[np.ndarray]]:
    return [[rng.integers(4, 90, size=n) for n in sentences] for sentences in lengths]


def padded_reference(encoder: TextEncoder, packed: dict) -> torch.Tensor:
    """transformers' own padded path with an attention mask, then the real tokens of each report."""
    reference = BertModel(encoder.encoder.config, add_pooling_layer=False).to(torch.float64)
    reference.load_state_dict(encoder.encoder.state_dict())
    reference.set_attn_implementation("eager")
    cu = packed["cu_tokens"].tolist()
    rows = [packed["token_ids"][a:b] for a, b in pairwise(cu)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    out = reference(input_ids=ids, attention_mask=mask).last_hidden_state
    return torch.cat([out[i, : len(row)] for i, row in enumerate(rows)])


@pytest.mark.parametrize("lengths", [[[3, 1, 7], [1], [2] * 20], [[5]], [[1], [1], [30, 30]]])
def test_packed_equals_padded(rng: np.random.Generator, lengths: list[list[int]]) -> None:
    torch.manual_seed(int(rng.integers(1 << 30)))
    encoder = TextEncoder(SIZES, vocab_size=90).double()
    packed = pack_reports(reports(rng, lengths), cls_id=2, sep_id=3).tensors()
    names = ("token_ids", "position_ids", "cu_tokens", "max_tokens")
    out = encoder(*(packed[name] for name in names))
    assert (out - padded_reference(encoder, packed)).abs().max() < 1e-12


@pytest.mark.gpu
@pytest.mark.parametrize("lengths", [[1], [200, 1, 17], [90] * 64, [128, 129]])
def test_packed_attention_on_a_gpu_errs_as_padded_does(rng: np.random.Generator, lengths: list[int]) -> None:
    """Output and gradients in bfloat16 beside float64; at most twice the error of padding inside, and a rounding."""
    torch.manual_seed(int(rng.integers(1 << 30)))
    cu = torch.tensor([0, *lengths]).cumsum(0).int().cuda()
    inputs = torch.randn(3, 1, 12, sum(lengths), 64, device="cuda").bfloat16()
    dout = torch.randn(1, sum(lengths), 12, 64, device="cuda").bfloat16()
    sizes = {"cu_tokens": cu, "max_tokens": max(lengths)}

    def results(x: torch.Tensor, attend: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        leaves = [part.detach().requires_grad_() for part in x]
        out = attend(*leaves)
        return [part.double() for part in (out, *torch.autograd.grad(out, leaves, dout.to(out.dtype)))]

    def packed(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return packed_attention(torch.nn.Identity(), q, k, v, None, **sizes)[0]

    def padded(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return padded_attention(q, k, v, cu, max(lengths), 64**-0.5)

    for found, plain, wide in zip(results(inputs, packed), results(inputs, padded), results(inputs.double(), padded)):
        allowed = 2 * (plain - wide).norm() + 2**-8 * wide.norm()
        assert (found - wide).norm() <= allowed


def test_a_report_does_not_see_another(rng: np.random.Generator) -> None:
    encoder = TextEncoder(SIZES, vocab_size=90).double()
    names = ("token_ids", "position_ids", "cu_tokens", "max_tokens")
    texts = reports(rng, [[4, 4], [3, 5, 2]])
    alone = pack_reports(texts[:1], 2, 3).tensors()
    both = pack_reports(texts, 2, 3).tensors()
    a = encoder(*(alone[name] for name in names))
    b = encoder(*(both[name] for name in names))
    assert (a - b[:10]).abs().max() < 1e-12


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.text\.weights=no/such/folder could not be loaded.*random"):
        TextEncoder(TextEncoderConfig(weights="no/such/folder"), vocab_size=90)


def test_weights_of_another_vocabulary_are_refused(tmp_path) -> None:
    TextEncoder(SIZES, vocab_size=90).encoder.save_pretrained(tmp_path)
    assert TextEncoder(TextEncoderConfig(weights=str(tmp_path)), vocab_size=90).out_channels == 48
    with pytest.raises(UsageError, match=r"vocabulary of 90 tokens, the prepared dataset one of 91.*--tokenizer"):
        TextEncoder(TextEncoderConfig(weights=str(tmp_path)), vocab_size=91)
