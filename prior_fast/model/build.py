"""A model for a run: its structure, and the weights that it starts from."""

import dataclasses

import torch

from prior_fast.config import ModelConfig
from prior_fast.model.image_encoder import load_resnet_weights
from prior_fast.model.prior import PRIOR


def build_model(config: ModelConfig, vocab_size: int, seed: int) -> tuple[PRIOR, list[str]]:
    """A model with the starting weights that `config` names, and a line for each encoder that says what they are.

    seed: of the weights that are random.

    Raises:
        UsageError: named weights can't be had or do not fit.
    """
    torch.manual_seed(seed)
    model = PRIOR(config, vocab_size)
    notes = [load_resnet_weights(model.image_encoder.encoder, config.image.weights), model.text_encoder.origin]
    return model, notes


def structure_of(model: PRIOR) -> ModelConfig:
    """The configuration that builds `model` again without fetching any weights."""
    return dataclasses.replace(
        model.config,
        image=dataclasses.replace(model.config.image, weights="random"),
        text=model.text_encoder.architecture(),
    )
