"""Reading weight files that come from outside, without unpickling anything but tensors."""

import pickle
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from prior_fast.errors import UsageError


def load_tensors(path: Path, setting: str) -> dict[str, Tensor]:
    """The named tensors in a .safetensors, .pt, .pth, .bin or .ckpt file; a `state_dict` around them is taken off.

    setting: the argument that named the file, for messages.

    Raises:
        UsageError: no such file, or no file of named tensors.
    """
    if not path.is_file():
        raise UsageError(f"{setting}={path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{setting}={path} can't be read as a file of tensors: {reason}") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{setting}={path} holds no state dict of named tensors")
    return state
