"""Linear layers joined into one product against the layers themselves."""

import copy
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

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
