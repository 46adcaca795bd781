"""The rule of CheXpert 5x200 and the draw."""

from pathlib import Path

import numpy as np
import pytest

from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation.config import EvaluationConfig
from prior_fast.evaluation.evaluation_source import prepared_source
from prior_fast.evaluation.selection import choose, select, select_one_class
from prior_fast.radiology.labels import CHEXPERT_LABELS, FIVE_CLASSES, present


def labels(*rows: dict[str, float]) -> np.ndarray:
    table = np.full((len(rows), 14), np.nan, np.float32)
    for index, row in enumerate(rows):
        for name, value in row.items():
            table[index, CHEXPERT_LABELS.index(name)] = value
    return table


@pytest.mark.parametrize(
    "name, uncertain",
    [
        ("Atelectasis", True),
        ("Cardiomegaly", False),
        ("Consolidation", False),
        ("Edema", True),
        ("Pleural Effusion", True),
    ],
)
def test_what_counts_as_positive(name: str, uncertain: bool) -> None:
    found = present(labels({name: 1}, {name: 0}, {name: -1}, {}), CHEXPERT_LABELS, [name])[:, 0]
    assert found.tolist() == [True, False, uncertain, False]


def test_exactly_one_of_the_five_and_any_other_finding() -> None:
    table = labels(
        {"Edema": 1, "Support Devices": 1, "Pneumonia": 1},
        {"Edema": 1, "Cardiomegaly": 1},
        {"Edema": 1, "Cardiomegaly": -1},
        {"Edema": -1, "Atelectasis": -1},
        {"Pneumothorax": 1},
        {"Pleural Effusion": -1},
    )
    selection = select(table, FIVE_CLASSES, per_class=200, seed=0)
    assert selection.positions.tolist() == [0, 2, 5]
    assert selection.truth.tolist() == [3, 3, 4]
    assert selection.pools == (0, 0, 0, 2, 1)
    assert selection.counts() == [0, 0, 0, 2, 1]


def test_the_draw_is_seeded_and_by_class() -> None:
    table = labels(*([{"Edema": 1}] * 50 + [{"Cardiomegaly": 1}] * 4))
    first, again, other = (select(table, ("Edema", "Cardiomegaly"), 10, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.positions, again.positions)
    assert first.positions.tolist() != other.positions.tolist()
    assert first.counts() == [10, 4] and first.pools == (50, 4)
    assert len(set(first.positions.tolist())) == 14
    alone = select(table, ("Cardiomegaly", "Edema"), 10, 0)
    np.testing.assert_array_equal(alone.positions[alone.truth == 1], first.positions[first.truth == 0])


def test_nothing_to_select_is_told(store: Path) -> None:
    with pytest.raises(UsageError, match=r"none of the 17 studies of the test split .* Fracture, Pneumonia"):
        choose(
            prepared_source(PreparedDataset.open(store, "test")), EvaluationConfig(classes=("Fracture", "Pneumonia")), 9
        )


def test_one_class_is_drawn_balanced_where_asked() -> None:
    values = np.array([1.0, 0.0, np.nan, 0.0, 1.0, 1.0, 0.0], np.float32)
    everything = select_one_class(values, per_class=7, seed=0)
    assert everything.positions.tolist() == [0, 4, 5, 1, 2, 3, 6] and everything.truth.tolist() == [0, 0, 0, 1, 1, 1, 1]
    drawn = select_one_class(values, per_class=2, seed=0)
    assert drawn.counts() == [2, 2] and drawn.pools == (3, 4)
    assert set(drawn.positions[:2].tolist()) < {0, 4, 5}


def test_a_random_order_keeps_each_with_its_class(store: Path) -> None:
    chosen = choose(prepared_source(PreparedDataset.open(store, "test")), EvaluationConfig(), 200)
    mixed = chosen.shuffled(3)
    assert mixed.ids != chosen.ids and sorted(zip(mixed.ids, mixed.truth)) == sorted(zip(chosen.ids, chosen.truth))
    assert mixed.ids == chosen.shuffled(3).ids
