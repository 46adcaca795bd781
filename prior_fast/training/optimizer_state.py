"""An optimizer's state as named tensors: `exp_avg.<parameter>` and so on."""

from collections.abc import Mapping

import torch
from torch import Tensor


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of the named parameters, by slot and name, contiguous."""
    return {
        f"{slot}.{name}": value.contiguous()
        for name, parameter in parameters.items()
        for slot, value in optimizer.state.get(parameter, {}).items()
    }


def fill_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Give the named parameters the state that `optimizer_tensors` took of them.

    Raises:
        KeyError: a tensor is of a parameter that is not there.
    """
    for key, value in tensors.items():
        slot, name = key.split(".", 1)
        parameter = parameters[name]
        # The fused update walks through memory: a moment has to lie there as its parameter does.
        like = value if slot == "step" else torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        optimizer.state[parameter][slot] = like.to(parameter.device)
