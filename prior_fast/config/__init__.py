"""The typed configuration of a run."""

from prior_fast.config.overrides import apply_overrides, from_dict, to_dict
from prior_fast.config.presets import PRESETS, preset
from prior_fast.config.schema import (
    BankConfig,
    DataConfig,
    ImageEncoderConfig,
    LossWeights,
    ModelConfig,
    RunConfig,
    SentenceDecoderConfig,
    TextEncoderConfig,
)
from prior_fast.config.validate import validate_config

__all__ = [
    "PRESETS",
    "BankConfig",
    "DataConfig",
    "ImageEncoderConfig",
    "LossWeights",
    "ModelConfig",
    "RunConfig",
    "SentenceDecoderConfig",
    "TextEncoderConfig",
    "apply_overrides",
    "from_dict",
    "preset",
    "to_dict",
    "validate_config",
]
