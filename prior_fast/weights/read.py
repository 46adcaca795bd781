"""Reads a weight file that may be damaged or made to harm: it has plain tensors with plain names, or it is refused."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prior_fast.console import busy
from prior_fast.errors import RunError, UsageError
from prior_fast.model.weights import load_checkpoint_file

_DTYPES = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
_LONGEST = 300  # characters of a name; the model's have up to 80


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The named tensors of a file and its other entries, as `load_checkpoint_file` returns them.

    Raises:
        UsageError: no such file, or no file of named tensors that are stored whole.
        RunError: it does not fit into the memory.
    """
    _refuse_others(path)
    try:
        with busy(f"reading {path.name}"):
            tensors, facts = load_checkpoint_file(path, "PATH")
    except UsageError:
        raise
    except MemoryError:
        raise RunError(f"{path}, {path.stat().st_size} bytes, does not fit into the memory") from None
    except Exception as error:  # the reader of pickles meets damaged bytes with errors of any type
        raise UsageError(f"{path} can't be read as a file of tensors: it is damaged ({type(error).__name__})") from None
    for name, tensor in tensors.items():
        if problem := _problem(name, tensor):
            raise UsageError(f"{path} {problem}")
    return tensors, facts


def _refuse_others(path: Path) -> None:
    """Refuse what is no file, or empty: reading a pipe would never end."""
    if path.is_dir():
        raise UsageError(f"PATH={path} is a folder: give the weight file in it")
    if not path.is_file():
        return  # the reader says that there is none
    if not path.stat().st_size:
        raise UsageError(f"PATH={path} is empty: copy or download it again")


def _problem(name: str, tensor: Tensor) -> str:
    """Why a tensor can't be used, for a message; "" if it can."""
    if not name.isprintable() or len(name) > _LONGEST:
        return f"has a tensor whose name is no name of a part: {name[:40]!a}"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.dtype not in _DTYPES:
        kind = str(tensor.dtype if tensor.layout == torch.strided else tensor.layout).removeprefix("torch.")
        return f"has a tensor of the kind {kind}, {name}: only dense tensors of plain numbers are read"
    # A tensor of a few bytes may claim to have any size.
    if tensor.is_meta or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        return f"does not hold all values of {name}, which has the shape {list(tensor.shape)}"
    return ""
