"""Linear layers joined into one product against the layers themselves."""

import copy
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from prior_fast.model.bert import join_projections
from prior_fast.model.joined_linear import JoinedLinear

NAMES = ("query", "key", "value")
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])


class Owner(nn.Module):
    """Two joined groups and a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        JoinedLinear(6, 4, NAMES).register(self, "projections")
        JoinedLinear(5, 3, ("left", "right")).register(self, "sides")
        self.last = nn.Linear(2, 2)


@DTYPES
@pytest.mark.parametrize("shape", [(1,), (7,), (2, 0), (3, 5)])
def test_equals_separate_layers(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(len(shape))
    owner = Owner().to(dtype)
    state = owner.state_dict()
    layers = [nn.Linear(6, 4).to(dtype) for _ in NAMES]
    for name, layer in zip(NAMES, layers):
        layer.load_state_dict({kind: state[f"{name}.{kind}"] for kind in ("weight", "bias")})
    x = torch.randn(*shape, 6, dtype=dtype, requires_grad=True)
    dout = torch.randn(3, *shape, 4, dtype=dtype)
    found, wanted = owner.projections(x), [layer(x) for layer in layers]
    plain = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    dx, dweight, dbias = torch.autograd.grad(found, [x, owner.projections.weight, owner.projections.bias], list(dout))
    dx_plain, *gradients = torch.autograd.grad(wanted, [x, *plain], list(dout))
    pairs = [*zip(found, wanted), (dx, dx_plain), *zip(dweight.split(4), gradients[::2])]
    for actual, expected in [*pairs, *zip(dbias.split(4), gradients[1::2])]:
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    for actual, expected in zip(owner.projections(x, 2), found[:2], strict=True):
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_in_a_state_dict_the_layers_are_apart(tmp_path: Path) -> None:
    owner, other = Owner(), Owner()
    layers = [*NAMES, "left", "right", "last"]
    assert {*owner.state_dict()} == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(nn.ModuleList([copy.deepcopy(owner)]).state_dict(), path)
    nn.ModuleList([other]).load_state_dict(safetensors.torch.load_file(path))
    assert all(torch.equal(x, y) for x, y in zip(owner.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key.weight": None}, r"Missing key.*projections\.weight.*Unexpected key.*query\.weight.*value\.weight"),
        ({"extra.weight": torch.zeros(2)}, r"Unexpected key.*extra\.weight"),
        ({name + ".bias": torch.zeros(5) for name in NAMES}, r"size mismatch for projections\.bias"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused(change: dict[str, Tensor | None], message: str) -> None:
    state = {**Owner().state_dict(), **change}
    with pytest.raises(RuntimeError, match=f"(?s){message}"):
        Owner().load_state_dict({key: value for key, value in state.items() if value is not None})


@DTYPES
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("decoder", [False, True])
def test_joined_bert_equals_transformers_own(
    attention: str, decoder: bool, dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=20, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32,
        is_decoder=decoder, add_cross_attention=decoder, use_cache=False, attn_implementation=attention,
    )  # fmt: skip
    plain = BertModel(config, add_pooling_layer=False).to(dtype).eval()
    joined = copy.deepcopy(plain)
    join_projections(joined)
    assert {*joined.state_dict()} == {*plain.state_dict()}
    assert sum(1 for name, _ in joined.named_parameters() if name.endswith("projections.weight")) == 2
    inputs = {"input_ids": torch.randint(20, (3, 7)), "attention_mask": torch.ones(3, 7, dtype=torch.long)}
    inputs["attention_mask"][1, 4:] = 0
    if decoder:
        inputs["encoder_hidden_states"] = torch.randn(3, 5, 24, dtype=dtype)
    dout = torch.randn(3, 7, 24, dtype=dtype)
    results = []
    for model in (plain, joined):
        out = model(**inputs).last_hidden_state
        out.backward(dout)
        results.append(out)
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)
    wanted = {name: parameter.grad for name, parameter in plain.named_parameters() if parameter.grad is not None}
    for name, parameter in joined.named_parameters():
        layers = [name]
        for child, parts in (("projections", NAMES), ("sources", ("key", "value"))):
            if f".{child}." in name:
                layers = [name.replace(child, part) for part in parts]
        if all(layer in wanted for layer in layers):
            expected = torch.cat([wanted.pop(layer) for layer in layers])
            torch.testing.assert_close(parameter.grad, expected, rtol=10 * tolerance, atol=10 * tolerance)
    assert not wanted
    joined.save_pretrained(tmp_path)
    again = BertModel.from_pretrained(tmp_path, add_pooling_layer=False).to(dtype)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in plain.state_dict().items())
