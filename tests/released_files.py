"""Small models with the released structure, and files with the released code's key names."""

import dataclasses

import torch
from torch import Tensor

from prior_fast.config import ImageEncoderConfig, TextEncoderConfig, preset
from prior_fast.model.prior import PRIORModel


def small_released(vocab_size: int, hidden_size: int = 64, positions: int = 512) -> PRIORModel:
    """A narrow model with the released structure: heads stay 64 wide, as in BERT.

    hidden_size, positions: of the text encoder.
    """
    released = preset("released").model
    config = dataclasses.replace(
        released,
        image=ImageEncoderConfig(depths=(1, 1, 1, 1), width=8, weights="random"),
        text=TextEncoderConfig(
            weights="random",
            hidden_size=hidden_size,
            layers=2,
            heads=hidden_size // 64,
            intermediate_size=32,
            positions=positions,
        ),
        bank=dataclasses.replace(released.bank, prototypes=10),
        sentence_decoder=dataclasses.replace(released.sentence_decoder, layers=1, heads=1, intermediate_size=32),
        embed_dim=64,
        report_pool_heads=8,
    )
    torch.manual_seed(0)
    return PRIORModel(config, vocab_size)


def released_names(model: PRIORModel) -> dict[str, Tensor]:
    """A model's tensors under the names of the authors' checkpoint, with the additional tensors of that checkpoint."""
    state = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("sentence_decoder.queries", "prototype_queries")
        state[name.replace("sentence_decoder.decoder.", "sentence_decoder.")] = tensor.clone()
    state["text_encoder.encoder.embeddings.position_ids"] = torch.arange(512)[None]
    state["text_encoder.encoder.pooler.dense.weight"] = torch.zeros(64, 64)
    state["sentence_decoder.embeddings.position_ids"] = torch.arange(512)[None]
    state["global_text_projection.weight"] = torch.zeros(64, 64)
    return state
