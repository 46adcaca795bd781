"""Writing checkpoints: whole or not at all, flushed to the disk, and never with values that are not finite."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from prior_fast.config import RunConfig, to_dict
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.files import atomic_directory, remove_folder
from prior_fast.files.facts import file_facts
from prior_fast.files.sealed import write_sealed
from prior_fast.files.space import need_space
from prior_fast.files.tensors import save_tensors
from prior_fast.model.build import structure_of
from prior_fast.model.prior import PRIORModel
from prior_fast.radiology.tokenizer import save_tokenizer
from prior_fast.training.checkpoint import FORMAT, INFO_FILE, VERSION, Position, list_checkpoints
from prior_fast.training.finite import check_weights
from prior_fast.training.optimizer_state import optimizer_tensors
from prior_fast.training.run_folder import dataset_digest


def save_checkpoint(
    folder: Path,
    position: Position,
    config: RunConfig,
    model: PRIORModel,
    optimizer: torch.optim.Optimizer,
    names: Mapping[str, Tensor],
    dataset: PreparedDataset,
    tau: float,
) -> Path:
    """Write a checkpoint into the run's `folder` and return its path; it replaces an older one of the same step.

    Raises:
        NotFinite: a weight or a moment is not finite. Nothing is written then.
        RunError: the disk is full.
    """
    path = folder / f"step-{position.total_steps:08d}"
    weights, state = model.state_dict(), optimizer_tensors(optimizer, names)
    where = f"stage {position.stage}, after step {position.step}"
    check_weights(weights, where)
    check_weights(state, where, "optimizer's state")
    with atomic_directory(path) as partial:
        save_tensors(partial / "model.safetensors", weights)
        save_tensors(partial / "optimizer.safetensors", state)
        save_tokenizer(dataset.tokenizer(), partial / "tokenizer")
        info = {
            "format": FORMAT,
            "version": VERSION,
            "position": asdict(position),
            "config": to_dict(config),
            "structure": to_dict(structure_of(model)),
            "vocab_size": dataset.vocab_size,
            "tau": tau,
            "image_mean": dataset.image_mean,
            "image_std": dataset.image_std,
            "dataset": dataset_digest(dataset),
            "files": file_facts(partial),
        }
        write_sealed(partial / INFO_FILE, info)
    return path


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints of a run. The kept ones must be on the disk already."""
    for path in list_checkpoints(folder)[:-keep]:
        _remove(path)


def drop_checkpoints(folder: Path, steps: int) -> list[str]:
    """Remove the checkpoints of a run after `steps` steps and later; returns their names."""
    dropped = [path for path in list_checkpoints(folder) if int(path.name.split("-")[1]) >= steps]
    for path in dropped:
        _remove(path)
    return [path.name for path in dropped]


def _remove(path: Path) -> None:
    # Renamed first: a kill never leaves a part of a checkpoint under its name.
    remove_folder(path.rename(path.with_name(f".{path.name}.{os.getpid()}.partial")))


def need_checkpoint_space(folder: Path, model: PRIORModel, keep: int) -> None:
    """Refuse a run whose checkpoints the disk can't hold: the kept ones and one more.

    Raises:
        RunError: too few bytes are free.
    """
    parameters = sum(parameter.nbytes for parameter in model.parameters())
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    # The optimizer has two moments for each parameter.
    size = 3 * parameters + buffers
    missing = max(keep + 1 - len(list_checkpoints(folder)), 1)
    need_space(folder, missing * size, f"keep_checkpoints={keep}: room for {missing} checkpoint(s)")
