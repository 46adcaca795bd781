"""The saved state of a split's fine-tuning: a folder that is never incomplete.

state/
  model.safetensors      parameters and buffers
  best.safetensors       parameters and buffers with the best validation value so far
  optimizer.safetensors  Adam's state, `exp_avg.<parameter>` and so on
  state.json             `Standing`
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from prior_fast.downstream.backbone import trained_parameters
from prior_fast.errors import UsageError
from prior_fast.files import atomic_directory, atomic_path, write_json
from prior_fast.training.optimizer_state import fill_optimizer, optimizer_tensors

Tensors = dict[str, Tensor]


@dataclass
class Standing:
    """The progress of a split's training.

    Attributes:
        step: steps taken.
        losses: the losses of the steps since the last validation.
        history: a line for each validation, as in log.jsonl.
        best: the best value so far of the metric that chooses weights.
        seconds: duration of training and validation so far.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    seconds: float = 0.0


def copy_weights(model: nn.Module) -> Tensors:
    """A copy of the current parameters and buffers, on their device."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def save_state(
    folder: Path, standing: Standing, model: nn.Module, best: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Replace the state in `folder`. A state in the folder is always complete, either the old or the new one."""
    moments = optimizer_tensors(optimizer, dict(trained_parameters(model)))
    with atomic_directory(folder) as partial:
        for name, tensors in (("model", model.state_dict()), ("best", best), ("optimizer", moments)):
            safetensors.torch.save_file(_plain(tensors), partial / f"{name}.safetensors")
        write_json(partial / "state.json", dataclasses.asdict(standing))


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Standing, Tensors]:
    """Load the model and the optimizer from `folder`; returns the progress and the best weights so far.

    Raises:
        UsageError: the state can't be read, or belongs to another model.
    """
    try:
        standing = Standing(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
        model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
        best = safetensors.torch.load_file(folder / "best.safetensors")
        tensors = safetensors.torch.load_file(folder / "optimizer.safetensors")
        fill_optimizer(optimizer, dict(trained_parameters(model)), tensors)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{folder} can't be read ({reason}): remove it to train this split again") from None
    return standing, best


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all."""
    with atomic_path(path) as partial:
        safetensors.torch.save_file(_plain(tensors), partial)


def _plain(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
