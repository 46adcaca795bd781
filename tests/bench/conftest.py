"""The same small settings as the training tests."""

import pytest

SMALL = [
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
    "data.max_tokens=64",
]


@pytest.fixture(scope="session")
def small_settings() -> list[str]:
    return list(SMALL)
