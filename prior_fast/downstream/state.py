"""The state of one split's fine-tuning on the disk, from which the training continues.

state/
  model.safetensors      parameters and buffers
  best.safetensors       those of the best validation so far; empty before the first
  optimizer.safetensors  Adam's state, `exp_avg.<parameter>` and so on
  state.json             `Standing`, and size and SHA-256 of the other files; sealed
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from prior_fast.downstream.backbone import trained_parameters
from prior_fast.downstream.results import check_history
from prior_fast.errors import UsageError
from prior_fast.files import atomic_directory, atomic_path
from prior_fast.files.facts import check_file, file_facts
from prior_fast.files.sealed import read_sealed, write_sealed
from prior_fast.files.tensors import load_tensors, save_tensors
from prior_fast.model.weights import misfit, nonfinite
from prior_fast.training.optimizer_state import fill_optimizer, optimizer_tensors

Tensors = dict[str, Tensor]
STATE_FILE = "state.json"


class Nonfinite(Exception):
    """A state holds a value that is infinite or NaN."""


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


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no value is infinite or NaN. The device is waited for once, for all tensors together."""
    finite: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_floating_point():
            finite.setdefault(tensor.device, []).append(tensor.detach().isfinite().all())
    return all(bool(torch.stack(each).all()) for each in finite.values())


def save_state(
    folder: Path, standing: Standing, model: nn.Module, best: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Replace the state in `folder`. A state in the folder is always complete, either the old or the new one.

    Raises:
        Nonfinite: a value is not finite; the old state is kept.
        RunError: the disk is full; the old state is kept.
    """
    moments = optimizer_tensors(optimizer, dict(trained_parameters(model)))
    parts = {"model": model.state_dict(), "best": dict(best), "optimizer": moments}
    if not all_finite(tensor for tensors in parts.values() for tensor in tensors.values()):
        odd = [f"{part} {name}" for part, tensors in parts.items() for name in nonfinite(tensors)]
        raise Nonfinite(f"step {standing.step}: {odd[0]} and {len(odd) - 1} more tensors are not finite")
    with atomic_directory(folder) as partial:
        for part, tensors in parts.items():
            save_tensors(partial / f"{part}.safetensors", tensors)
        write_sealed(partial / STATE_FILE, {**dataclasses.asdict(standing), "files": file_facts(partial)})


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Standing, Tensors]:
    """Load the model and the optimizer from `folder`; returns the progress and the best weights so far.

    Raises:
        UsageError: the state is damaged or can't be read, or belongs to another model.
    """
    try:
        saved = read_sealed(folder / STATE_FILE)
        # A state of version 0.1 has no digests.
        files = saved.pop("files", {})
        standing = _standing(saved)
        tensors = {}
        for part in ("model", "best", "optimizer"):
            check_file(folder, files, f"{part}.safetensors")
            tensors[part] = load_tensors(folder / f"{part}.safetensors")
        wanted, best = model.state_dict(), tensors["best"]
        problems = (misfit(wanted, tensors["model"]), misfit(wanted, best) if standing.history else None)
        if any(problems) or not all_finite(tensors["optimizer"].values()):
            raise ValueError(f"it {problems[0] or problems[1] or 'has moments that are not finite'}")
        model.load_state_dict(tensors["model"])
        fill_optimizer(optimizer, dict(trained_parameters(model)), tensors["optimizer"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, UsageError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"{folder} can't be read ({reason}): remove it to train this split again") from None
    return standing, best


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all."""
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as partial:
        # safetensors writes to a file of its own beside the path; a kill would leave it there.
        partial.write_bytes(safetensors.torch.save(plain))


def _standing(saved: dict[str, Any]) -> Standing:
    """The progress in a state.json.

    Raises:
        ValueError: a value is of another type.
        TypeError: an entry is missing or unknown.
    """
    missing = [each.name for each in dataclasses.fields(Standing) if each.name not in saved]
    if missing:
        raise ValueError(f"{STATE_FILE} has no {missing[0]!r}")
    standing = Standing(**saved)
    numbers = [*standing.losses, standing.seconds, *([] if standing.best is None else [standing.best])]
    if type(standing.step) is not int or standing.step < 0 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{STATE_FILE} has an impossible 'step', 'losses', 'seconds' or 'best'")
    check_history(standing.history, STATE_FILE)
    return standing
