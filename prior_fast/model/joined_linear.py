"""Linear layers of the same input, computed by one product."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class JoinedLinear(nn.Linear):
    """Linear layers of the same input and width, with their weights stacked in one matrix.

    State dicts hold the layers separately, under their own names in the module that owns them (`register`).

    Attributes:
        names: names of the layers.
        width: out_features of each.
    """

    def __init__(self, in_features: int, width: int, names: tuple[str, ...]) -> None:
        super().__init__(in_features, width * len(names))
        self.names, self.width = names, width

    def forward(self, x: Tensor, first: int | None = None) -> tuple[Tensor, ...]:  # type: ignore[override]
        """x [..., in_features] -> [..., width] of each layer, or of the first `first` layers; views of one tensor."""
        if first is None:
            return self.joined(x).split(self.width, dim=-1)
        columns = first * self.width
        return F.linear(x, self.weight[:columns], self.bias[:columns]).split(self.width, dim=-1)

    def joined(self, x: Tensor) -> Tensor:
        """x [..., in_features] -> [..., width of all layers], in their order."""
        return F.linear(x, self.weight, self.bias)

    def register(self, owner: nn.Module, name: str) -> None:
        """Add this module to `owner` as `name`; the owner's state dict gets `<layer>.weight` and `<layer>.bias`."""
        if not any(_joined(owner)):
            owner.register_state_dict_post_hook(_separate)
            owner.register_load_state_dict_pre_hook(_join)
        owner.add_module(name, self)


def _joined(owner: nn.Module) -> Iterator[tuple[str, JoinedLinear]]:
    return ((name, child) for name, child in owner.named_children() if isinstance(child, JoinedLinear))


def _separate(owner: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for child, joined in _joined(owner):
        for kind in ("weight", "bias"):
            parts = state.pop(f"{prefix}{child}.{kind}").split(joined.width)
            state.update({f"{prefix}{name}.{kind}": part for name, part in zip(joined.names, parts, strict=True)})


def _join(owner: nn.Module, state: dict[str, Any], prefix: str, *args: Any) -> None:
    for child, joined in _joined(owner):
        for kind in ("weight", "bias"):
            keys = [f"{prefix}{name}.{kind}" for name in joined.names]
            if all(key in state for key in keys):
                state[f"{prefix}{child}.{kind}"] = torch.cat([state.pop(key) for key in keys])
