"""Tensors in safetensors files."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from prior_fast.errors import UsageError
from prior_fast.files.space import system_error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors, detached and made contiguous, to a new file in a folder that `atomic_directory` or a path that
    `atomic_path` yields.

    Raises:
        OSError: the file can't be written; errno and filename are set.
    """
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        safetensors.torch.save_file(plain, path, metadata=metadata)
    except safetensors.SafetensorError as error:
        raise system_error(error, path) or OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU.

    Raises:
        UsageError: it can't be read.
    """
    try:
        return safetensors.torch.load_file(path)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UsageError(f"{path} can't be read: {' '.join(str(error).split())[:200]}") from None
