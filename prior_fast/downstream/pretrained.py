"""The starting point of fine-tuning: the image encoder of a checkpoint, or a file with a ResNet's tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch

from prior_fast.config import ImageEncoderConfig
from prior_fast.errors import UsageError
from prior_fast.model.image_encoder import ImageEncoder, load_resnet_weights
from prior_fast.model.weights import load_strictly, load_tensors
from prior_fast.training.checkpoint import Checkpoint, open_checkpoint
from prior_fast.weights.convert import IMAGE_MEAN, IMAGE_STD
from prior_fast.weights.structure import image_structure

PREFIX = "image_encoder."


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
        try:
            with safetensors.safe_open(self.path, "pt") as file:
                names = [name for name in file.keys() if name.startswith(PREFIX)]  # noqa: SIM118
                tensors = {name.removeprefix(PREFIX): file.get_tensor(name) for name in names}
        except (OSError, safetensors.SafetensorError) as error:
            raise UsageError(f"{self.path} can't be read: {error}") from None
        load_strictly(encoder, tensors, str(self.path), "model of its checkpoint.json")
        return encoder


def open_pretrained(path: Path) -> Pretrained:
    """The encoder of a run, of a checkpoint, or of a file with a ResNet's tensors.

    Raises:
        UsageError: there is no encoder, or it can't be read.
    """
    return _of_file(path) if path.is_file() else of_checkpoint(open_checkpoint(path))


def of_checkpoint(checkpoint: Checkpoint) -> Pretrained:
    """The encoder of a checkpoint."""
    return Pretrained(
        path=checkpoint.path / "model.safetensors",
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
    found = Pretrained(
        path=path,
        image=image_structure(load_tensors(path, "--checkpoint")),
        layout="patches",
        image_mean=IMAGE_MEAN,
        image_std=IMAGE_STD,
        has_pool=False,
        facts={"path": str(path), "preset": None, "stage": None, "total_steps": None},
    )
    found.load("checkpoint", 0)  # reports an unsuitable file before anything else is read
    return found
