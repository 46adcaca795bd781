"""A prepared dataset, and a small model with the released structure for its tokenizer."""

from pathlib import Path

import pytest

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.model.prior import PRIORModel
from tests.released_files import small_released


@pytest.fixture(scope="module")
def dataset(small_store: Path) -> PreparedDataset:
    return PreparedDataset.open(small_store, "test")


@pytest.fixture(scope="module")
def model(dataset: PreparedDataset) -> PRIORModel:
    return small_released(dataset.vocab_size)
