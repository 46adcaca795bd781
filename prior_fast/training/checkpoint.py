"""Checkpoints: folders that are written atomically, with everything needed to evaluate or to resume.

step-00000500/
  model.safetensors      parameters and buffers
  optimizer.safetensors  Adam's state, `exp_avg.<parameter>` and so on
  checkpoint.json        the run's position and config, the model's structure
  tokenizer/             a Hugging Face fast tokenizer
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from prior_fast.config import ModelConfig, RunConfig, from_dict, to_dict
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.files import atomic_directory, write_json
from prior_fast.model.build import structure_of
from prior_fast.model.prior import PRIORModel
from prior_fast.model.weights import load_strictly
from prior_fast.training.optimizer_state import fill_optimizer, optimizer_tensors

FORMAT, VERSION = "prior-fast-checkpoint", 1
_FOLDER = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Position:
    """The position of a run: `step` steps of `stage` are done, and `total_steps` of all stages."""

    stage: int = 1
    step: int = 0
    total_steps: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder and the content of its checkpoint.json.

    tau: the bank's temperature in the last step.
    image_mean, image_std: of the training images in [0, 1]; they normalize all images that the model gets.
    """

    path: Path
    position: Position
    config: RunConfig
    structure: ModelConfig
    vocab_size: int
    tau: float
    image_mean: float
    image_std: float

    def load_model(self) -> PRIORModel:
        """The model, in evaluation mode, on the CPU.

        Raises:
            UsageError: the weights are missing, damaged or of another structure.
        """
        model = PRIORModel(self.structure, self.vocab_size)
        name = "model.safetensors"
        load_strictly(model, self.tensors(name), str(self.path / name), "model of its checkpoint.json")
        return model.eval()

    def check_dataset(self, dataset: PreparedDataset) -> None:
        """Raise UsageError unless `dataset` has the tokenizer that the model was trained with."""
        if self.tokenizer().get_vocab() != dataset.tokenizer().get_vocab():
            raise UsageError(
                f"{dataset.root} was prepared with another tokenizer than the data of {self.path}: prepare it again "
                f"with --tokenizer {self.path / 'tokenizer'}"
            )

    def load_optimizer(self, optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor]) -> None:
        """Fill the optimizer's state; `names` maps names to the optimizer's parameters.

        Raises:
            UsageError: the state belongs to other parameters.
        """
        tensors = self.tensors("optimizer.safetensors")
        unknown = {key.split(".", 1)[1] for key in tensors} - names.keys()
        if unknown:
            raise UsageError(
                f"{self.path / 'optimizer.safetensors'} has a state of {min(unknown)}, which is no parameter here; "
                "another version of prior-fast wrote it. The checkpoint can be evaluated; to train on, start a new run"
            )
        fill_optimizer(optimizer, names, tensors)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that the model was trained with."""
        return PreTrainedTokenizerFast.from_pretrained(self.path / "tokenizer")

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one of its .safetensors files.

        Raises:
            UsageError: it can't be read.
        """
        try:
            return safetensors.torch.load_file(self.path / name)
        except (OSError, safetensors.SafetensorError) as error:
            raise UsageError(f"{self.path / name} can't be read: {error}") from None


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
    """Write a checkpoint into the run's `folder` and return its path; it replaces an older one of the same step."""
    path = folder / f"step-{position.total_steps:08d}"
    state = optimizer_tensors(optimizer, names)
    with atomic_directory(path) as partial:
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        safetensors.torch.save_file(weights, partial / "model.safetensors")
        safetensors.torch.save_file(state, partial / "optimizer.safetensors")
        dataset.tokenizer().save_pretrained(partial / "tokenizer")
        info: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "position": asdict(position),
            "config": to_dict(config),
            "structure": to_dict(structure_of(model)),
            "vocab_size": dataset.vocab_size,
            "tau": tau,
            "image_mean": dataset.image_mean,
            "image_std": dataset.image_std,
        }
        write_json(partial / "checkpoint.json", info)
    return path


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints of a run."""
    for path in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(path)


def list_checkpoints(folder: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if _FOLDER.fullmatch(path.name))


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`, or the newest one of the run at `path`.

    Raises:
        UsageError: there is none, or it is of another format or version.
    """
    if not path.is_dir():
        raise UsageError(f"no checkpoint at {path}: give a run's folder or one of its step-... folders")
    if not (path / "checkpoint.json").is_file():
        checkpoints = list_checkpoints(path / "checkpoints") or list_checkpoints(path)
        if not checkpoints:
            raise UsageError(f"no checkpoint in {path}: give a run's folder or one of its step-... folders")
        path = checkpoints[-1]
    try:
        info = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
        if (info["format"], info["version"]) != (FORMAT, VERSION):
            raise UsageError(
                f"{path} is of format {info['format']} {info['version']}; this version reads {FORMAT} {VERSION}"
            )
        return Checkpoint(
            path=path,
            position=Position(**info["position"]),
            config=from_dict(RunConfig, info["config"]),
            structure=from_dict(ModelConfig, info["structure"]),
            vocab_size=info["vocab_size"],
            tau=info["tau"],
            image_mean=info["image_mean"],
            image_std=info["image_std"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path / 'checkpoint.json'} can't be read: {error!r}") from None
