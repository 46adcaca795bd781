"""The named configs. `prior_fast.config.sources` has the source of every value."""

from collections.abc import Callable

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
from prior_fast.errors import UsageError


def paper() -> RunConfig:
    """The values of the paper and its supplement; the released code's or our own where they give none."""
    return RunConfig()


def released() -> RunConfig:
    """The released code's values, including its memory layout, where they differ from the paper's."""
    return RunConfig(
        preset="released",
        model=ModelConfig(
            bank=BankConfig(init="gaussian", tau_decay="fixed"),
            sentence_decoder=SentenceDecoderConfig(layers=8, causal=True),
            projection="linear",
            sentence_pool="mean",
            decoder_norm="before_relu",
            layout="released",
        ),
        data=DataConfig(interpolation="nearest", flip=True),
        stage_epochs=(20, 30, 100),
        batch_size=588,
        optimizer="adamw",
        learning_rate=(1e-5, 1e-5, 5e-6),
        clip_norm=0.0,
    )


def tiny() -> RunConfig:
    """The structure of `paper` with small parts, for two CPU cores, tests and the demo. Starts from random weights."""
    return RunConfig(
        preset="tiny",
        model=ModelConfig(
            image=ImageEncoderConfig(depths=(1, 1, 1), width=16, shrink=2, weights="random"),
            text=TextEncoderConfig(
                weights="random",
                hidden_size=128,
                layers=1,
                heads=4,
                intermediate_size=256,
                dropout=0.0,
                attention_dropout=0.0,
            ),
            bank=BankConfig(prototypes=256, init="sentences"),
            sentence_decoder=SentenceDecoderConfig(layers=2, heads=4, intermediate_size=256, dropout=0.0),
            embed_dim=128,
            sentence_pool="mean",
            temperature=0.2,
            use_attention_alignment=True,
            attention_bias=-3.9,
            decoder_blocks=3,
            decoder_width=64,
        ),
        data=DataConfig(workers=1, rotation=0.0, partial_reports=(0.0, 0.5, 0.0)),
        # The global term has its stage 3 weight in every stage: from random weights, training on the local terms
        # alone makes no progress.
        loss=LossWeights(global_alignment=(10.0, 10.0, 10.0), local_image=0.3, local_text=0.3, attention_alignment=3.0),
        stage_epochs=(5, 1, 2),
        batch_size=32,
        learning_rate=(2e-3, 5e-4, 1e-3),
        text_learning_rate=0.25,
        learning_rate_start=(1e-5, 1e-5, 1e-5),
        warmup_epochs=(3.0, 0.2, 0.2),
        checkpoint_every=400,
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {"paper": paper, "released": released, "tiny": tiny}


def preset(name: str) -> RunConfig:
    """The config called `name`.

    Raises:
        UsageError: there is no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}: choose from {', '.join(PRESETS)}")
    return PRESETS[name]()
