"""The structure of a model, read from the names and shapes of a file's tensors."""

import dataclasses
import re
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from torch import Tensor

from prior_fast.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig, preset
from prior_fast.errors import UsageError
from prior_fast.model.image_encoder import MAP_SIZE

_HEAD_WIDTH = 64  # of BERT's attention heads; the tensors do not tell their number
_SIDE = 224


def image_structure(tensors: Mapping[str, Tensor], prefix: str = "") -> ImageEncoderConfig:
    """The config of a ResNet with tensors of these names, after `prefix`, and shapes.

    The tensors do not tell by how much images are shrunk before the stem; the number of stages does, since the last map
    is 7x7.
    """
    default = ImageEncoderConfig(weights="random")
    depths = _depths(tensors, re.escape(prefix)) or default.depths
    stem = tensors.get(f"{prefix}conv1.weight")
    return dataclasses.replace(
        default,
        depths=depths,
        width=default.width if stem is None else stem.shape[0],
        shrink=_SIDE // (MAP_SIZE * 2 ** (len(depths) + 1)),
    )


def image_settings(image: ImageEncoderConfig) -> list[str]:
    """The settings of `prior-fast train` that build an image encoder like `image`; none for a ResNet-50."""
    default = ImageEncoderConfig()
    if (image.depths, image.width) == (default.depths, default.width):
        return []
    depths = ",".join(map(str, image.depths))
    # All of them: the preset may have other sizes than a ResNet-50.
    return [f"model.image.depths={depths}", f"model.image.width={image.width}", f"model.image.shrink={image.shrink}"]


def structure_of_tensors(path: Path, here: Mapping[str, Tensor]) -> tuple[ModelConfig, int]:
    """The released structure with the sizes of a whole model's tensors, and the vocabulary size.

    here: the tensors by the model's names.

    Raises:
        UsageError: a tensor that sizes are read from is missing.
    """
    released = preset("released").model
    try:
        words, positions, types = (
            here[f"text_encoder.encoder.embeddings.{name}_embeddings.weight"]
            for name in ("word", "position", "token_type")
        )
        wide = here["text_encoder.encoder.encoder.layer.0.intermediate.dense.weight"].shape[0]
        bank = here["sentence_bank.embed.weight"]
        queries = here["sentence_decoder.queries"].shape[1]
        decoder_wide = here["sentence_decoder.decoder.encoder.layer.0.intermediate.dense.weight"].shape[0]
        here["image_encoder.encoder.conv1.weight"]
    except KeyError as error:
        raise UsageError(
            f"{path} is neither an image encoder nor a whole model of PRIOR: it has no {error.args[0]}"
        ) from None
    width, hidden = bank.shape[1], words.shape[1]
    structure = dataclasses.replace(
        released,
        image=image_structure(here, "image_encoder.encoder."),
        text=TextEncoderConfig(
            weights="random",
            hidden_size=hidden,
            layers=_count(here, r"text_encoder\.encoder\.encoder\.layer\.(\d+)\."),
            heads=max(1, hidden // _HEAD_WIDTH),
            intermediate_size=wide,
            positions=positions.shape[0],
            token_types=types.shape[0],
        ),
        bank=dataclasses.replace(released.bank, prototypes=bank.shape[0]),
        sentence_decoder=dataclasses.replace(
            released.sentence_decoder,
            layers=_count(here, r"sentence_decoder\.decoder\.encoder\.layer\.(\d+)\."),
            heads=max(1, width // _HEAD_WIDTH),
            intermediate_size=decoder_wide,
            queries=queries,
        ),
        embed_dim=width,
    )
    return structure, words.shape[0]


def _depths(names: Mapping[str, Any], prefix: str) -> tuple[int, ...]:
    """The number of blocks in each stage of a ResNet, read from its keys."""
    counts = (_count(names, rf"{prefix}layer{stage}\.(\d+)\.") for stage in range(1, 5))
    return tuple(takewhile(bool, counts))


def _count(names: Mapping[str, Any], pattern: str) -> int:
    found = [int(match.group(1)) for match in map(re.compile(pattern).match, names) if match]
    return max(found, default=-1) + 1
