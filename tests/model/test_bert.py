"""Our BERT against transformers' BertModel: outputs, every gradient, names and values of the state dict."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModel, BertConfig, BertModel

from prior_fast.config import SentenceDecoderConfig, TextEncoderConfig
from prior_fast.model.bert import ACTIVATIONS, Bert, BertStructure, attend_to_self, attend_within
from prior_fast.model.pretrained_bert import bert_config
from prior_fast.model.sentence_decoder import SentenceDecoder
from prior_fast.model.text_encoder import TextEncoder
from prior_fast.model.weights import load_strictly

Gradients = dict[str, Tensor]
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])


def draw_structure(rng: np.random.Generator, hidden_act: str) -> TextEncoderConfig:
    heads, width = int(rng.integers(1, 5)), int(rng.integers(3, 9))
    return TextEncoderConfig(
        weights="random",
        hidden_size=heads * width,
        layers=int(rng.integers(1, 4)),
        heads=heads,
        intermediate_size=int(rng.integers(1, 50)),
        hidden_act=hidden_act,  # type: ignore[arg-type]
        layer_norm_eps=float(10 ** rng.uniform(-12, -1)),
        positions=int(rng.integers(20, 90)),
        token_types=int(rng.integers(1, 4)),
        dropout=0.0,
        attention_dropout=0.0,
    )


def theirs(structure: TextEncoderConfig, dtype: torch.dtype, seed: int, **more: object) -> BertModel:
    """transformers' model with weights drawn so that nothing is 0 or 1 by default."""
    config = BertConfig(**bert_config(structure), vocab_size=40, pad_token_id=None, attn_implementation="eager", **more)
    model = BertModel(config, add_pooling_layer=False).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        shift = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(shift + 0.3 * values)
    return model


def assert_equal_gradients(found: Gradients, wanted: Gradients, tolerance: float) -> None:
    wanted = {name: wanted[name] for name in found}  # a decoder's word table gets none
    scale = max(x.abs().max() for x in wanted.values()).item()
    for name, expected in wanted.items():
        assert (found[name] - expected).abs().max() <= tolerance * scale, name


@DTYPES
@pytest.mark.parametrize("hidden_act", list(ACTIVATIONS))
@pytest.mark.parametrize("lengths", [[1], [5], [20, 1, 7], [2] * 9 + [19]])
def test_packed_reports_are_those_of_transformers(
    lengths: list[int],
    hidden_act: str,
    dtype: torch.dtype,
    tolerance: float,
    rng: np.random.Generator,
    gradients_by_name: Callable[[torch.nn.Module], Gradients],
) -> None:
    structure = draw_structure(rng, hidden_act)
    reference = theirs(structure, dtype, int(rng.integers(1 << 30)))
    encoder = TextEncoder(structure, vocab_size=40).to(dtype)
    load_strictly(encoder.encoder, reference.state_dict(), "transformers")
    rows = [torch.from_numpy(rng.integers(0, 40, n)) for n in lengths]
    dout = [torch.from_numpy(rng.standard_normal((n, structure.hidden_size))).to(dtype) for n in lengths]
    wanted = []
    for ids, d in zip(rows, dout):
        out = reference(input_ids=ids[None]).last_hidden_state[0]
        out.backward(d)
        wanted.append(out.detach())
    cu = torch.tensor([0, *lengths]).cumsum(0).int()
    positions = torch.cat([torch.arange(n) for n in lengths])
    out = encoder(torch.cat(rows), positions, cu, max(lengths))
    out.backward(torch.cat(dout))
    torch.testing.assert_close(out.detach(), torch.cat(wanted), rtol=tolerance, atol=tolerance)
    assert_equal_gradients(gradients_by_name(encoder.encoder), gradients_by_name(reference), 10 * tolerance)


@DTYPES
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("batch", "queries", "patches"), [(1, 1, 1), (3, 7, 5), (2, 16, 49)])
def test_the_sentence_decoder_is_that_of_transformers(
    batch: int,
    queries: int,
    patches: int,
    causal: bool,
    dtype: torch.dtype,
    tolerance: float,
    rng: np.random.Generator,
    gradients_by_name: Callable[[torch.nn.Module], Gradients],
) -> None:
    torch.manual_seed(int(rng.integers(1 << 30)))
    config = SentenceDecoderConfig(layers=2, heads=3, intermediate_size=17, queries=queries, dropout=0.0)
    ours = SentenceDecoder(replace(config, causal=causal), 24).to(dtype)
    structure = TextEncoderConfig(
        weights="random", hidden_size=24, layers=2, heads=3, intermediate_size=17, dropout=0.0, attention_dropout=0.0
    )
    seed = int(rng.integers(1 << 30))
    reference = theirs(structure, dtype, seed, is_decoder=True, add_cross_attention=True, use_cache=False)
    state = {name: x for name, x in reference.state_dict().items() if "word_embeddings" not in name}
    load_strictly(ours.decoder, state, "transformers")
    image = torch.randn(batch, patches, 24, dtype=dtype)
    dout = torch.randn(batch, queries, 24, dtype=dtype)
    sources = [image.clone().requires_grad_() for _ in range(2)]
    out = ours(sources[0])
    out.backward(dout)
    # transformers' decoder is causal by default; if ours is not, the mask allows all positions.
    inputs = ours.queries.detach().expand(batch, -1, -1)
    allowed = torch.ones(queries, queries, dtype=torch.bool)
    mask = allowed.tril() if causal else allowed
    additive = torch.zeros(queries, queries, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
    expected = reference(
        inputs_embeds=inputs, encoder_hidden_states=sources[1], attention_mask=additive[None, None]
    ).last_hidden_state
    expected.backward(dout)
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(sources[0].grad, sources[1].grad, rtol=10 * tolerance, atol=10 * tolerance)
    assert_equal_gradients(gradients_by_name(ours.decoder), gradients_by_name(reference), 10 * tolerance)


def test_layers_take_rows_that_lie_apart(rng: np.random.Generator) -> None:
    """Input that is every second row of a tensor, with two batch dimensions."""
    torch.manual_seed(int(rng.integers(1 << 30)))
    bert = Bert(BertStructure(12, 2, 3, 20, dropout=0.0, positions=9)).double()
    rows = torch.randn(2, 3, 14, 12, dtype=torch.float64)
    attend: Callable[..., Tensor] = partial(_attend_any, attend_to_self)
    apart, packed = (bert(x, attend) for x in (rows[:, :, ::2], rows[:, :, ::2].contiguous()))
    torch.testing.assert_close(apart, packed, rtol=1e-12, atol=1e-12)
    alone = bert(rows[1, 2, ::2][None], attend_to_self)[0]
    torch.testing.assert_close(apart[1, 2], alone, rtol=1e-12, atol=1e-12)


def _attend_any(attend: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    return attend(*(part.flatten(0, 1) for part in parts)).unflatten(0, parts[0].shape[:2])


def test_dropout_is_where_berts_is() -> None:
    """Dropout follows the embeddings and each block's linear layer; in evaluation mode there is none."""
    structure = BertStructure(16, 3, 2, 32, dropout=0.4)
    bert = Bert(structure, vocab_size=10, cross_attention=True)
    layers = [name for name, module in bert.named_modules() if isinstance(module, torch.nn.Dropout) and module.p == 0.4]
    assert len(layers) == 1 + 3 * 3
    words, image = torch.randn(2, 5, 16), torch.randn(2, 4, 16)
    run = partial(bert, words, attend_to_self, sources=image, attend_to_sources=attend_within)
    assert not torch.equal(run(), run())
    bert.eval()
    assert torch.equal(run(), run())


def test_fresh_weights_are_drawn_as_asked() -> None:
    torch.manual_seed(0)
    bert = Bert(BertStructure(96, 2, 4, 200), vocab_size=500, std=0.05)
    for name, parameter in bert.named_parameters():
        if name.endswith("LayerNorm.weight"):
            assert torch.equal(parameter, torch.ones_like(parameter))
        elif name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.numel() > 5000:
            assert parameter.std().item() == pytest.approx(0.05, rel=0.05), name
            assert abs(parameter.mean().item()) < 0.003, name


@pytest.mark.parametrize("hidden_act", list(ACTIVATIONS))
def test_a_state_dict_is_a_folder_of_transformers(hidden_act: str, rng: np.random.Generator, tmp_path: Path) -> None:
    """transformers' own loader finds a place for each of our tensors, and none is missing."""
    structure = draw_structure(rng, hidden_act)
    encoder = TextEncoder(structure, vocab_size=33).encoder
    BertConfig(vocab_size=33, **bert_config(structure)).save_pretrained(tmp_path)
    torch.save(encoder.state_dict(), tmp_path / "pytorch_model.bin")
    model, info = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    state = encoder.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
