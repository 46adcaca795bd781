"""An optimizer's state as named tensors: `exp_avg.<parameter>` and so on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from prior_fast.training.fused_adam import FusedAdam


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of the named parameters, by slot and name, contiguous."""
    return {
        f"{slot}.{name}": torch.as_tensor(value, dtype=torch.float32).contiguous()
        for name, parameter in parameters.items()
        for slot, value in optimizer.state.get(parameter, {}).items()
    }


def fill_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Restore the named parameters' state from the result of `optimizer_tensors`.

    Raises:
        KeyError: a tensor belongs to a parameter that is not in `parameters`.
    """
    for key, value in tensors.items():
        slot, name = key.split(".", 1)
        parameter = parameters[name]
        if slot == "step" and isinstance(optimizer, FusedAdam):
            optimizer.state[parameter][slot] = int(value)
            continue
        # The fused update goes through memory in order: a moment needs the memory layout of its parameter.
        like = value if slot == "step" else torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        optimizer.state[parameter][slot] = like.to(parameter.device)
