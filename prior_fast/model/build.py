"""Builds the model of a run with its starting weights."""

import dataclasses
from collections.abc import Mapping

import torch

from prior_fast.config import DataConfig, ModelConfig
from prior_fast.errors import UsageError
from prior_fast.model.image_encoder import load_resnet_weights
from prior_fast.model.pretrained_bert import check_vocabulary, read_bert
from prior_fast.model.prior import PRIORModel
from prior_fast.model.weights import load_strictly


def build_model(
    config: ModelConfig, vocab_size: int, seed: int, vocabulary: Mapping[str, int] | None = None
) -> tuple[PRIORModel, list[str]]:
    """A model with the starting weights that `config` names, and one line per encoder that describes them.

    seed: seed of the random weights.
    vocabulary: token to id, of the dataset's tokenizer; it must equal that of the text encoder's weights.

    Raises:
        UsageError: the named weights can't be loaded or do not fit.
    """
    weights = config.text.weights
    torch.manual_seed(seed)
    if weights == "random":
        model, text = PRIORModel(config, vocab_size), "random weights"
    else:
        pretrained = read_bert(weights)
        text = f"weights from {weights}{check_vocabulary(pretrained, weights, vocab_size, vocabulary)}"
        # What does not follow from the weights stays as it was asked for.
        text_config = dataclasses.replace(pretrained.structure, residual=config.text.residual)
        model = PRIORModel(dataclasses.replace(config, text=text_config), vocab_size)
        load_strictly(model.text_encoder.encoder, pretrained.tensors, f"model.text.weights={weights}")
    image = load_resnet_weights(model.image_encoder.encoder, config.image.weights)
    return model, [image, f"text encoder: {text}"]


def structure_of(model: PRIORModel) -> ModelConfig:
    """The config that builds `model` again without loading any weights."""
    config = model.config
    return dataclasses.replace(
        config,
        image=dataclasses.replace(config.image, weights="random"),
        text=dataclasses.replace(config.text, weights="random"),
    )


def check_positions(structure: ModelConfig, data: DataConfig) -> None:
    """Raise UsageError if reports may be longer than the text encoder has positions."""
    positions = structure.text.positions
    for name, tokens in (("max_tokens", data.max_tokens), ("token_bucket", data.token_bucket)):
        if tokens > positions:
            raise UsageError(
                f"data.{name}={tokens}: the text encoder has {positions} positions; ask for data.{name}={positions} "
                "or less"
            )
