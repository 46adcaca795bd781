"""The small model of the training tests, on short reports."""

import pytest

from tests.small_model import SMALL_MODEL


@pytest.fixture(scope="session")
def small_settings() -> list[str]:
    return [*SMALL_MODEL, "data.max_tokens=64"]
