"""A model and a batch that have shapes, layouts and devices, but no data: nothing is computed or allocated."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from prior_fast.batch import PackedBatch
from prior_fast.config import ModelConfig
from prior_fast.measure.ladder.batches import VOCABULARY
from prior_fast.model.prior import PRIORModel
from prior_fast.ops.common.checks import ENVIRONMENT_VARIABLE


def shape_model(config: ModelConfig) -> PRIORModel:
    """A model in training mode on the device "meta"."""
    with torch.device("meta"):
        return PRIORModel(config, VOCABULARY).train()


def move_model(model: PRIORModel, device: str) -> None:
    """Give the parameters and buffers of `model` the device; call it within a FakeTensorMode. It need not exist."""
    # One by one: `model.to` does not support tensors without data.
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(_like(parameter, device)))
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, _like(buffer, device))


def empty_batch(batch: PackedBatch, device: str) -> PackedBatch:
    """A batch of the sizes of `batch` on `device`; call it within a FakeTensorMode."""
    tensors = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    moved: dict[str, Any] = {name: _like(x, device) for name, x in tensors.items() if isinstance(x, Tensor)}
    return dataclasses.replace(batch, **moved)


def _like(x: Tensor, device: str) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device)


@contextmanager
def without_data(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Context manager: tensors have no data, ops do not check values, and products are in `dtype`, as in training."""
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    os.environ[ENVIRONMENT_VARIABLE] = "0"
    # Set directly: torch.autocast turns itself off for a device that this machine does not have.
    half, own = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    try:
        torch.set_autocast_enabled(device, dtype != torch.float32)
        torch.set_autocast_dtype(device, torch.bfloat16)
        with FakeTensorMode():
            yield
    finally:
        torch.set_autocast_enabled(device, half)
        torch.set_autocast_dtype(device, own)
        torch.clear_autocast_cache()
        os.environ.pop(ENVIRONMENT_VARIABLE, None)
        if before is not None:
            os.environ[ENVIRONMENT_VARIABLE] = before


@contextmanager
def replaced(owner: object, name: str, function: Callable[..., object]) -> Iterator[None]:
    """Context manager: `function` takes the place of a function of a module."""
    before = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, before)
