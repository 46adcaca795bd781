"""Checks for values that are not finite: of a step, and of what a checkpoint holds."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from prior_fast.errors import RunError

GRADIENT_NORM = "gradient_norm"


class NotFinite(RunError):
    """A value became NaN or infinite.

    Attributes:
        steps: steps of the whole run after which the weights were already wrong: the next step shows it. None if the
            weights after the last step are wrong, which no checkpoint has.
    """

    def __init__(self, message: str, steps: int | None = None) -> None:
        super().__init__(message)
        self.steps = steps


def check_finite(values: dict[str, float], where: str, steps: int | None = None, part: str = "") -> None:
    """Raise NotFinite if a value is not finite; the message begins with `where` and names the value.

    A term is named before the gradient's norm, and this before `loss`, which is the weighted sum of the terms.

    Args:
        steps: see `NotFinite`.
        part: which studies the values are of, for the message.
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    bad.sort(key=lambda name: (name == "loss", name == GRADIENT_NORM))
    if bad:
        what = "the norm of the gradient" if bad[0] == GRADIENT_NORM else f"the loss term {bad[0]}"
        raise NotFinite(f"{where}: {what}{part} is {values[bad[0]]}", steps)


def check_weights(tensors: Mapping[str, Tensor], where: str, kind: str = "weight") -> None:
    """Raise NotFinite if a tensor has values that are not finite; the message begins with `where`."""
    if bad := not_finite(tensors):
        more = f" and {len(bad) - 1} more are" if len(bad) > 1 else " is"
        raise NotFinite(f"{where}: the {kind} {bad[0]}{more} not finite")


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that have NaN or infinity. The host waits once for each device."""
    names: dict[torch.device, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            names.setdefault(tensor.device, []).append(name)
    bad = []
    for group in names.values():
        broken = torch.stack([tensors[name].isfinite().logical_not().any() for name in group]).tolist()
        bad += [name for name, holds in zip(group, broken) if holds]
    return bad
