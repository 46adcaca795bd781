"""Settings that make a run small enough for a test, with every part of the structure kept."""

import pytest

SMALL = [
    "batch_size=8",
    "stage_epochs=1,1,1",
    "max_steps_per_stage=2",
    "log_every=1",
    "checkpoint_every=100",
    "data.workers=0",
    "precision=fp32",
    "model.image.width=8",
    "model.image.pool_heads=2",
    "model.text.hidden_size=32",
    "model.text.heads=2",
    "model.text.intermediate_size=32",
    "model.text.layers=1",
    "model.sentence_decoder.layers=1",
    "model.sentence_decoder.intermediate_size=32",
    "model.embed_dim=32",
    "model.bank.prototypes=16",
]


@pytest.fixture(scope="session")
def small_settings() -> list[str]:
    return list(SMALL)
