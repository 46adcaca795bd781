"""The starting point of fine-tuning: the image encoder of a checkpoint, or a file with a ResNet's tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from prior_fast.config import ImageEncoderConfig
from prior_fast.downstream.encoder_file import check_sizes, read_encoder_file
from prior_fast.errors import UsageError
from prior_fast.files.facts import check_file
from prior_fast.files.tensors import load_tensors
from prior_fast.model.image_encoder import ImageEncoder, load_resnet_weights
from prior_fast.model.weights import load_strictly
from prior_fast.training.checkpoint import Checkpoint, open_checkpoint
from prior_fast.weights.convert import IMAGE_MEAN, IMAGE_STD
from prior_fast.weights.structure import image_structure

PREFIX = "image_encoder."
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class Pretrained:
    """An image encoder and the normalization of its images.

    Attributes:
        path: the file of its weights.
        image: its config.
        layout: see `prior_fast.model.image_encoder.ImageEncoder`.
        image_mean, image_std: mean and standard deviation of the pre-training images in [0, 1].
        has_pool: whether the file also has the attention pool.
        facts: entries of metrics.json.
    """

    path: Path
    image: ImageEncoderConfig
    layout: Literal["patches", "released"]
    image_mean: float
    image_std: float
    has_pool: bool
    facts: dict[str, Any]

    def load(self, weights: str, seed: int) -> ImageEncoder:
        """The encoder, on the CPU; no other part of a checkpoint is read or built.

        weights: "checkpoint", or "random" for the same architecture with fresh weights, drawn from `seed`.

        Raises:
            UsageError: the weights are missing, damaged or of another structure.
        """
        torch.manual_seed(seed)
        encoder = ImageEncoder(self.image, self.layout)
        if weights == "random":
            return encoder
        if not self.has_pool:
            load_resnet_weights(encoder.encoder, str(self.path), "--checkpoint")
            return encoder
        tensors = load_tensors(self.path)
        tensors = {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items() if key.startswith(PREFIX)}
        load_strictly(encoder, tensors, str(self.path), "model of its checkpoint.json")
        refuse_impossible(tensors, self.path)
        return encoder


def refuse_impossible(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that make features which are not finite, although they are finite themselves.

    Raises:
        UsageError: a variance of a batch normalization is negative; the message names the tensor.
    """
    for name, tensor in tensors.items():
        if name.endswith("running_var") and tensor.numel() and tensor.min() < 0:
            raise UsageError(f"{path}: {name} has negative values, but it is a variance: give another --checkpoint")


def open_pretrained(path: Path) -> Pretrained:
    """The encoder of a run, of a checkpoint, or of a file with a ResNet's tensors; all of its weights are checked.

    Raises:
        UsageError: there is no encoder, it is damaged or can't be read, or a weight is not finite.
    """
    if path.is_file():
        return _of_file(path)
    checkpoint = open_checkpoint(path)
    check_file(checkpoint.path, checkpoint.files, WEIGHTS_FILE)
    found = of_checkpoint(checkpoint)
    found.load("checkpoint", 0)
    return found


def of_checkpoint(checkpoint: Checkpoint) -> Pretrained:
    """The encoder of a checkpoint."""
    return Pretrained(
        path=checkpoint.path / WEIGHTS_FILE,
        image=checkpoint.structure.image,
        layout=checkpoint.structure.layout,
        image_mean=checkpoint.image_mean,
        image_std=checkpoint.image_std,
        has_pool=True,
        facts={
            "path": str(checkpoint.path),
            "preset": checkpoint.config.preset,
            "stage": checkpoint.position.stage,
            "total_steps": checkpoint.position.total_steps,
        },
    )


def _of_file(path: Path) -> Pretrained:
    """A ResNet with torchvision's names: the authors' file, an exported encoder, or weights of ImageNet."""
    tensors = read_encoder_file(path)
    image = image_structure(tensors, source=f"--checkpoint {path}")
    check_sizes(path, image, tensors)
    refuse_impossible(tensors, path)
    found = Pretrained(
        path=path,
        image=image,
        layout="patches",
        image_mean=IMAGE_MEAN,
        image_std=IMAGE_STD,
        has_pool=False,
        facts={"path": str(path), "preset": None, "stage": None, "total_steps": None},
    )
    found.load("checkpoint", 0)  # reports an unsuitable file before anything else is read
    return found
