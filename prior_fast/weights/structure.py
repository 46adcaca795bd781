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
# No ResNet or BERT is as deep or as wide. Sizes in damaged files, and in files made to harm, become no loop over them.
_DEEPEST, _WIDEST = 100, 2**20


def image_structure(
    tensors: Mapping[str, Tensor], prefix: str = "", source: str | Path = "the file"
) -> ImageEncoderConfig:
    """The config of a ResNet with tensors of these names, after `prefix`, and shapes; source: the file, for messages.

    The tensors do not tell by how much images are shrunk before the stem; the number of stages does, since the last map
    is 7x7.

    Raises:
        UsageError: the stem's tensor has no usable size.
    """
    default = ImageEncoderConfig(weights="random")
    depths = _depths(tensors, re.escape(prefix)) or default.depths
    stem = tensors.get(f"{prefix}conv1.weight")
    return dataclasses.replace(
        default,
        depths=depths,
        width=default.width if stem is None else _sizes(source, f"{prefix}conv1.weight", stem, 4)[0],
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
        UsageError: a tensor that sizes are read from is missing, or has no usable size.
    """
    released = preset("released").model
    bert, decoder = "text_encoder.encoder.", "sentence_decoder.decoder."
    inside = "encoder.layer.0.intermediate.dense.weight"

    def sizes(name: str, axes: int = 2) -> tuple[int, ...]:
        return _sizes(path, name, here[name], axes)

    try:
        vocab_size, hidden = sizes(f"{bert}embeddings.word_embeddings.weight")
        positions, types = (
            sizes(f"{bert}embeddings.{name}_embeddings.weight")[0] for name in ("position", "token_type")
        )
        wide = sizes(f"{bert}{inside}")[0]
        prototypes, width = sizes("sentence_bank.embed.weight")
        queries = sizes("sentence_decoder.queries", 3)[1]
        decoder_wide = sizes(f"{decoder}{inside}")[0]
        here["image_encoder.encoder.conv1.weight"]
    except KeyError as error:
        raise UsageError(
            f"{path} is neither an image encoder nor a whole model of PRIOR: it has no {error.args[0]}"
        ) from None
    for name, size in (("text encoder", hidden), ("sentence decoder", width)):
        if size % max(1, size // _HEAD_WIDTH):
            raise UsageError(f"{path}: its {name} has width {size}, which is no multiple of {_HEAD_WIDTH}")
    structure = dataclasses.replace(
        released,
        image=image_structure(here, "image_encoder.encoder.", path),
        text=TextEncoderConfig(
            weights="random",
            hidden_size=hidden,
            layers=_count(here, rf"{re.escape(bert)}encoder\.layer\.(\d+)\."),
            heads=max(1, hidden // _HEAD_WIDTH),
            intermediate_size=wide,
            positions=positions,
            token_types=types,
        ),
        bank=dataclasses.replace(released.bank, prototypes=prototypes),
        sentence_decoder=dataclasses.replace(
            released.sentence_decoder,
            layers=_count(here, rf"{re.escape(decoder)}encoder\.layer\.(\d+)\."),
            heads=max(1, width // _HEAD_WIDTH),
            intermediate_size=decoder_wide,
            queries=queries,
        ),
        embed_dim=width,
    )
    return structure, vocab_size


def _depths(names: Mapping[str, Any], prefix: str) -> tuple[int, ...]:
    """The number of blocks in each stage of a ResNet, read from its keys."""
    counts = (_count(names, rf"{prefix}layer{stage}\.(\d+)\.") for stage in range(1, 5))
    return tuple(takewhile(bool, counts))


def _count(names: Mapping[str, Any], pattern: str) -> int:
    """The number of layers: one more than the greatest number in the keys that `pattern` matches.

    Greater numbers than there are such keys, or than a model has layers, are left out: their keys are unknown later.
    """
    matches = [match for match in map(re.compile(pattern).match, names) if match]
    most = min(_DEEPEST, len(matches))
    # Python refuses to read numbers of thousands of digits.
    found = [int(match.group(1)) for match in matches if len(match.group(1)) < 9]
    return max((number for number in found if number < most), default=-1) + 1


def _sizes(source: str | Path, name: str, tensor: Tensor, axes: int) -> tuple[int, ...]:
    """The shape of a tensor that tells the sizes of the model.

    Raises:
        UsageError: it has another number of axes, or a size that no model has.
    """
    if tensor.dim() != axes or not all(1 <= size <= _WIDEST for size in tensor.shape):
        raise UsageError(
            f"{source}: {name} has shape {list(tensor.shape)}; the model needs {axes} sizes from 1 to {_WIDEST}"
        )
    return tuple(tensor.shape)
