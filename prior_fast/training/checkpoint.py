"""Checkpoints: folders that are written atomically, with everything needed to evaluate or to resume.

step-00000500/
  model.safetensors      parameters and buffers
  optimizer.safetensors  Adam's state, `exp_avg.<parameter>` and so on
  checkpoint.json        the run's position and config, the model's structure, size and SHA-256 of the other files
  tokenizer/             a Hugging Face fast tokenizer
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prior_fast.config import ModelConfig, RunConfig, from_dict
from prior_fast.console import busy
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.data.tokenizer_folder import read_tokenizer
from prior_fast.errors import UsageError
from prior_fast.files.facts import check_file
from prior_fast.files.sealed import read_sealed
from prior_fast.files.tensors import load_tensors
from prior_fast.model.prior import PRIORModel
from prior_fast.model.weights import load_strictly
from prior_fast.training.optimizer_state import fill_optimizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FORMAT, VERSION = "prior-fast-checkpoint", 1
INFO_FILE = "checkpoint.json"
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
    dataset: the digest of the dataset that the model was trained with (`run_folder.dataset_digest`); "" if unknown.
    files: size and SHA-256 of the other files; a checkpoint of version 0.1 has none, and is not compared.
    """

    path: Path
    position: Position
    config: RunConfig
    structure: ModelConfig
    vocab_size: int
    tau: float
    image_mean: float
    image_std: float
    dataset: str = ""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def verify(self) -> None:
        """Raise UsageError if a file is missing, was changed or is damaged."""
        with busy(f"checking {self.path.name}"):
            for name in self.files:
                check_file(self.path, self.files, name)

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

    def tokenizer(self) -> "PreTrainedTokenizerFast":
        """The tokenizer that the model was trained with.

        Raises:
            UsageError: its files are missing, damaged or can't be read.
        """
        for name in self.files:
            if name.startswith("tokenizer/"):
                check_file(self.path, self.files, name)
        return read_tokenizer(self.path / "tokenizer", self.vocab_size, "give another checkpoint")

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one of its .safetensors files.

        Raises:
            UsageError: it is missing, was changed, is damaged or can't be read.
        """
        check_file(self.path, self.files, name)
        return load_tensors(self.path / name)


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
    if not (path / INFO_FILE).is_file():
        checkpoints = list_checkpoints(path / "checkpoints") or list_checkpoints(path)
        if not checkpoints:
            raise UsageError(f"no checkpoint in {path}: give a run's folder or one of its step-... folders")
        path = checkpoints[-1]
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise UsageError(f"{path / INFO_FILE} can't be read: {reason}") from None


def newest_sound(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint of a run whose files are all as they were written, and what is wrong with newer ones.

    None if the run has no checkpoint.

    Raises:
        UsageError: the run has checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for path in reversed(list_checkpoints(run / "checkpoints")):
        try:
            checkpoint = open_checkpoint(path)
            checkpoint.verify()
        except UsageError as error:
            damaged.append(str(error))
        else:
            return checkpoint, damaged
    if damaged:
        raise UsageError(f"no checkpoint of {run} can be used: {damaged[0]}; train again in another folder (--out)")
    return None, []


def _read(path: Path) -> Checkpoint:
    info = read_sealed(path / INFO_FILE)
    if (info["format"], info["version"]) != (FORMAT, VERSION):
        raise UsageError(
            f"{path} is of format {info['format']} {info['version']}; this version reads {FORMAT} {VERSION}"
        )
    mean, std = float(info["image_mean"]), float(info["image_std"])
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        raise ValueError(f"image_mean={mean} and image_std={std} normalize no image")
    return Checkpoint(
        path=path,
        position=Position(**info["position"]),
        config=from_dict(RunConfig, info["config"]),
        structure=from_dict(ModelConfig, info["structure"]),
        vocab_size=info["vocab_size"],
        tau=info["tau"],
        image_mean=mean,
        image_std=std,
        dataset=info.get("dataset", ""),
        files=info.get("files", {}),
    )
