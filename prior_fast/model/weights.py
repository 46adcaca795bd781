"""Reads weight files without unpickling anything but tensors, and loads them completely or not at all."""

import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from prior_fast.errors import UsageError

# Entries that training programs put around a state dict, and prefixes that they put before its names.
ENVELOPES = ("state_dict", "model")
WRAPPERS = ("module.", "model.")


def load_tensors(path: Path, setting: str) -> dict[str, Tensor]:
    """The named tensors in a .safetensors, .pt, .pth, .bin or .ckpt file, as in `load_checkpoint_file`."""
    return load_checkpoint_file(path, setting)[0]


def load_checkpoint_file(path: Path, setting: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The named tensors in a .safetensors, .pt, .pth, .bin or .ckpt file, without what wraps them; its other entries.

    An entry `state_dict` or `model` around the tensors is removed, and so is `module.` or `model.` before every name.
    The entries beside it, such as `epoch`, are returned as they are.

    setting: the argument that named the file, for messages.

    Raises:
        UsageError: no such file, or no file of named tensors.
    """
    if not path.is_file():
        raise UsageError(f"{setting}={path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return unwrapped(safetensors.torch.load_file(path)), {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats
            state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise UsageError(f"{setting}={path} is damaged, or does not fit into the memory") from None
    except pickle.UnpicklingError:
        raise UsageError(
            f"{setting}={path} can't be read as a file of tensors: it is damaged, or holds more than tensors and plain "
            "values, which alone are read. Save the state dict alone where the file was made"
        ) from None
    except Exception as error:  # damaged bytes lead the readers to errors of any type
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"{setting}={path} can't be read as a file of tensors: {reason}") from None
    state, others = _opened(state)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{setting}={path} holds no state dict of named tensors")
    return unwrapped(state), others


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without the prefixes of `WRAPPERS` that all of its names have."""
    tensors = {str(name): tensor for name, tensor in state.items()}
    while prefix := next((p for p in WRAPPERS if tensors and all(name.startswith(p) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str, target: str = "encoder") -> None:
    """Fill `module` from tensors with exactly the names and shapes of its state dict, and finite values.

    source, target: where the tensors come from, and what they must fit, for messages.

    Raises:
        UsageError: a tensor is missing, unknown, of another shape or not finite; `module` is unchanged.
    """
    problem = misfit(module.state_dict(), tensors)
    if problem:
        raise UsageError(f"{source} does not fit the {target}: it {problem}")
    module.load_state_dict(dict(tensors))


def misfit(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str | None:
    """Why `tensors` can't fill a state dict like `wanted`, with the names of up to two tensors; None if they can."""
    missing = [name for name in wanted if name not in tensors]
    unknown = [name for name in tensors if name not in wanted]
    if missing:
        other = f", and has {len(unknown)} that it does not know: {named(unknown)}" if unknown else ""
        return f"lacks {len(missing)} of the model's {len(wanted)} tensors: {named(missing)}{other}"
    if unknown:
        return f"has {len(unknown)} tensors that the model does not know: {named(unknown)}"
    shapes = {name: (list(tensors[name].shape), list(wanted[name].shape)) for name in wanted}
    others = [f"{name} has shape {got}, the model's has {want}" for name, (got, want) in shapes.items() if got != want]
    if others:
        return f"has another shape in {len(others)} tensors: {named(others)}"
    odd = nonfinite(tensors)
    if odd:
        return f"has values that are not finite in {len(odd)} tensors: {named(odd)}"
    return None


def nonfinite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors with a value that is infinite or NaN; meta tensors are skipped."""
    real = {name: x for name, x in tensors.items() if x.is_floating_point() and not x.is_meta}
    # A finite sum means finite values. If the sum is not finite, it may have overflowed: then all values are checked.
    return [name for name, x in real.items() if not x.sum().isfinite() and not x.isfinite().all()]


def named(names: Collection[str], most: int = 2) -> str:
    """The first `most` names, and the number of the others."""
    shown, more = list(names)[:most], len(names) - most
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _opened(state: Any) -> tuple[Any, dict[str, Any]]:
    """The state dict inside the entries that wrap it, and the entries beside it."""
    others: dict[str, Any] = {}
    seen: set[int] = set()  # a damaged file can hold a dictionary that holds itself
    while isinstance(state, dict) and id(state) not in seen:
        seen.add(id(state))
        name = next((name for name in ENVELOPES if isinstance(state.get(name), dict)), None)
        if name is None:
            break
        others |= {key: value for key, value in state.items() if key != name}
        state = state[name]
    return state, others
