"""Checks of op arguments. Every message names the argument, its actual and its expected value.

Shapes, dtypes and devices are always checked. Checking values (offsets, a temperature in a tensor) means reading them,
and the host would wait for a GPU. They are therefore checked for CPU tensors only; PRIOR_FAST_CHECK=1 checks them on
every device and PRIOR_FAST_CHECK=0 on none. Values are never checked while torch.compile traces.
"""

import os
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

FLOAT_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
OFFSET_DTYPES = (torch.int32, torch.int64)
ENVIRONMENT_VARIABLE = "PRIOR_FAST_CHECK"


def check_tensors(**arguments: tuple[Any, str]) -> None:
    """Check that float tensors have matching shapes, one dtype and one device.

    Args:
        arguments: by name, the value and its shape as letters, such as q=(q, "Tq H D"). A repeated letter must have
            the size of its first use; the first argument sets dtype and device.

    Raises:
        ValueError: a value is not a tensor, or has the wrong shape, dtype or device.
    """
    sizes: dict[str, tuple[int, str]] = {}
    first: str | None = None
    for name, (value, letters) in arguments.items():
        check_is_tensor(name, value, letters)
        if first is None:
            first = name
            check_dtype(name, value, FLOAT_DTYPES)
        check_shape(name, value, letters.split(), sizes)
        reference: Tensor = arguments[first][0]
        if value.dtype != reference.dtype:
            raise ValueError(f"{name} has dtype {value.dtype}, wanted {reference.dtype}, the dtype of {first}")
        check_device(name, value, first, reference)


def check_is_tensor(name: str, value: Any, letters: str) -> None:
    """Raise ValueError unless `value` is a tensor; `letters` is the expected shape."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor [{', '.join(letters.split())}], got {type(value).__name__}")


def check_dtype(name: str, x: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    """Raise ValueError unless `x` has one of `dtypes`."""
    if x.dtype not in dtypes:
        wanted = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name} has dtype {x.dtype}, wanted one of {wanted}")


def check_device(name: str, x: Tensor, reference_name: str, reference: Tensor) -> None:
    """Raise ValueError unless `x` is on the device of `reference`."""
    if x.device != reference.device:
        raise ValueError(f"{name} is on {x.device}, wanted {reference.device}, the device of {reference_name}")


def check_shape(name: str, x: Tensor, letters: list[str], sizes: dict[str, tuple[int, str]]) -> None:
    """Raise ValueError unless `x` has the shape `letters`; `sizes` holds each letter's size and origin."""
    described = f"{name} has shape {list(x.shape)}, wanted [{', '.join(letters)}]"
    if x.dim() != len(letters):
        raise ValueError(f"{described}, {len(letters)} dimensions")
    for letter, size in zip(letters, x.shape, strict=True):
        wanted, origin = sizes.setdefault(letter, (size, name))
        if size != wanted:
            raise ValueError(f"{described} with {letter} = {wanted} as in {origin}")


def check_length(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is an int >= 0. A tensor would have to be read back from its device."""
    if not isinstance(value, int | torch.SymInt) or isinstance(value, bool):
        raise ValueError(f"{name} must be a Python int, got {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} is {value}, wanted 0 or more")


def check_offsets(
    name: str,
    cu_seqlens: Any,
    rows_name: str,
    rows: Tensor,
    *,
    max_name: str | None = None,
    max_seqlen: int | None = None,
    segments: int | None = None,
) -> None:
    """Check offsets [B + 1] of segments in the rows of `rows`, and the int that bounds the segments' lengths.

    Raises:
        ValueError: the shape (`segments`, if given, is B), dtype or device is wrong, or `max_seqlen` is no int >= 0.
            Where values are checked, also: the offsets do not start at 0, decrease, or do not end at the number of
            rows, or a segment is longer than `max_seqlen`.
    """
    check_is_tensor(name, cu_seqlens, "B+1")
    check_dtype(name, cu_seqlens, OFFSET_DTYPES)
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        raise ValueError(f"{name} has shape {list(cu_seqlens.shape)}, wanted [B+1]")
    if segments is not None and cu_seqlens.shape[0] != segments + 1:
        raise ValueError(f"{name} has shape {list(cu_seqlens.shape)}, wanted [{segments + 1}], for {segments} segments")
    check_device(name, cu_seqlens, rows_name, rows)
    if max_name is not None:
        check_length(max_name, max_seqlen)
    if values_are_checked(cu_seqlens):
        _check_offset_values(name, cu_seqlens, rows_name, rows.shape[0], max_name, max_seqlen)


def _check_offset_values(
    name: str, cu_seqlens: Tensor, rows_name: str, rows: int, max_name: str | None, max_seqlen: int | None
) -> None:
    offsets = cu_seqlens.detach().cpu().numpy()
    lengths = offsets[1:] - offsets[:-1]
    if offsets[0] != 0:
        raise ValueError(f"{name} starts at {offsets[0]}, wanted 0")
    if (lengths < 0).any():
        segment = int((lengths < 0).argmax())
        raise ValueError(f"{name} decreases from {offsets[segment]} to {offsets[segment + 1]} at segment {segment}")
    if offsets[-1] != rows:
        raise ValueError(f"{name} ends at {offsets[-1]}, wanted {rows}, the rows of {rows_name}")
    if max_seqlen is not None and lengths.size and lengths.max() > max_seqlen:
        segment = int(lengths.argmax())
        raise ValueError(f"{max_name} is {max_seqlen}, but segment {segment} of {name} has {lengths[segment]} rows")


def check_scalar(name: str, value: Any, reference_name: str, reference: Tensor) -> None:
    """Raise ValueError unless `value` is a number, or a 0-dimensional float tensor on the reference's device."""
    if isinstance(value, Tensor):
        check_dtype(name, value, FLOAT_DTYPES)
        if value.dim() != 0:
            raise ValueError(f"{name} has shape {list(value.shape)}, wanted a tensor without dimensions")
        check_device(name, value, reference_name, reference)
    else:
        check_number(name, value)


def check_number(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a Python number."""
    if isinstance(value, bool) or not isinstance(value, int | float | torch.SymInt | torch.SymFloat):
        raise ValueError(f"{name} must be a number, got {type(value).__name__}")


def check_seed(seed: int | Tensor | None, reference_name: str, reference: Tensor) -> None:
    """A seed is None, an int that int64 holds, or an int64 tensor of one element on the device of `reference`."""
    if isinstance(seed, Tensor):
        check_dtype("seed", seed, (torch.int64,))
        check_device("seed", seed, reference_name, reference)
        if seed.numel() != 1:
            raise ValueError(f"seed has shape {list(seed.shape)}, wanted one element")
    elif seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ValueError(f"seed must be an int or an int64 tensor, got {type(seed).__name__}")
        if not -(2**63) <= seed < 2**63:
            raise ValueError(f"seed is {seed}, wanted a number that int64 holds")


def check_dropout(dropout: Any, seed: int | Tensor | None, reference_name: str, reference: Tensor) -> None:
    """dropout is a probability below 1, and has a seed unless it is 0."""
    check_number("dropout", dropout)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}, wanted 0 or more and less than 1")
    check_seed(seed, reference_name, reference)
    if dropout and seed is None:
        raise ValueError(f"dropout is {dropout}, but seed is None: pass a seed, a new one at each call")


def values_are_checked(x: Tensor) -> bool:
    """Whether the values of `x` may be read now; see the top of this file."""
    if torch.compiler.is_compiling() or type(x) not in (Tensor, Parameter) or x.device.type == "meta":
        return False
    setting = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if setting not in ("", "0", "1"):
        raise ValueError(f"{ENVIRONMENT_VARIABLE}={setting!r}, wanted 0 or 1")
    return setting == "1" or (setting == "" and x.device.type == "cpu")
