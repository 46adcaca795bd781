"""Splits: no patient is in two parts, parts have their nominal shares, and smaller lists are subsets of larger ones."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast.prepare.labelled import splits
from prior_fast.prepare.labelled.splits import Pool


@st.composite
def pools(draw):
    """Up to 60 patients with 1 to 4 images each, some of them positive."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=60))
    patients = [f"patient{number}" for number, size in enumerate(sizes) for _ in range(size)]
    ids = [f"{patient}/{number}" for number, patient in enumerate(patients)]
    positive = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    return Pool(ids, patients, positive)


def make_pool(images: int, share: float, per_patient: int = 1, seed: int = 0) -> Pool:
    positive = (np.random.default_rng(seed).random(images) < share).tolist()
    return Pool([f"i{n:05d}" for n in range(images)], [f"p{n // per_patient}" for n in range(images)], positive)


def parts_of(split):
    return [list(split.train[100]), list(split.validate), list(split.test)]


@given(pools())
@settings(max_examples=60, deadline=None)
def test_no_patient_and_no_image_is_in_two_parts(pool):
    for split in splits.prior_splits(pool).values():
        assert splits.shared_patients(pool, split) == 0
        assert sorted(chain(*parts_of(split))) == sorted(pool.ids)
    alone = Pool(pool.ids, pool.ids, pool.positive)
    for split in (splits.benchx_split(alone), splits.mgca_split(alone, "")):
        assert sorted(chain(*parts_of(split))) == sorted(pool.ids)
    positives = [name for name, value in zip(pool.ids, pool.positive) if value]
    folds = splits.fold_splits(alone)
    for split in folds.values():
        assert sorted(chain(*parts_of(split))) == sorted(positives)
    assert sorted(name for split in folds.values() for name in split.test) == sorted(positives)
    assert sorted(name for split in folds.values() for name in split.validate) == sorted(positives)


@given(pools(), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_lists_of_1_and_10_percent_are_nested_and_hold_a_positive(pool, seed):
    lists = splits.stratified_percentages(pool, seed)
    assert lists[100] == list(pool.ids)
    assert set(lists[1]) <= set(lists[10]) <= set(lists[100])
    positive = {name for name, value in zip(pool.ids, pool.positive) if value}
    for percent in (1, 10):
        assert len(lists[percent]) == max(1, round(percent / 100 * len(pool.ids)))
        assert bool(positive & set(lists[percent])) == bool(positive)


def test_sizes_and_shares_of_a_large_pool():
    pool = make_pool(20_000, 0.225, per_patient=2)
    for split in splits.prior_splits(pool).values():
        assert [len(part) for part in parts_of(split)] == [12_000, 4_000, 4_000]
        positive = {name for name, value in zip(pool.ids, pool.positive) if value}
        share = len(positive & set(split.train[100])) / 12_000
        assert abs(len(positive & set(split.train[1])) / 120 - share) < 0.005
        assert abs(len(positive & set(split.train[10])) / 1200 - share) < 0.0005
    benchx = splits.benchx_split(pool)
    assert [len(part) for part in parts_of(benchx)] == [14_000, 3_000, 3_000]
    for part in parts_of(benchx):
        assert abs(len(positive & set(part)) / len(part) - sum(pool.positive) / 20_000) < 1e-3


def test_seeds_differ_and_repeat():
    pool = make_pool(500, 0.3)
    first, second = splits.prior_splits(pool), splits.prior_splits(pool)
    assert first == second
    assert len({tuple(split.test) for split in first.values()}) == 5


def test_folds_test_validate_and_train():
    pool = make_pool(100, 0.5)
    folds = splits.fold_splits(pool)
    assert set(folds["folds-0"].validate) == set(folds["folds-1"].test)
    assert set(folds["folds-4"].validate) == set(folds["folds-0"].test)
    sizes = {len(split.test) for split in folds.values()}
    assert max(sizes) - min(sizes) <= 1


def test_samples_are_those_of_pandas():
    # pandas.DataFrame({"i": range(1000)}).sample(frac=0.01, random_state=42).index, known from RandomState(42)'s
    # permutation of 1,000: the well-known first numbers 521, 737, 740.
    lists = splits.sampled_percentages([str(n) for n in range(1000)])
    assert lists[1][:3] == ["521", "737", "740"] and len(lists[1]) == 10 and len(lists[10]) == 100
    assert lists[10][:10] == lists[1] and len(lists[100]) == 1000


@given(pools(), st.integers(0, 80))
@settings(max_examples=60, deadline=None)
def test_whole_patients_are_held_out(pool, images):
    held = splits.held_out_patients(pool, images, 0)
    count = sum(held)
    assert count >= min(images, len(pool.ids))
    assert images > 0 or count == 0
    assert count < images + 4
    inside = {patient for patient, value in zip(pool.patients, held) if value}
    assert not inside & {patient for patient, value in zip(pool.patients, held) if not value}


@pytest.mark.parametrize("images", [1, 2, 3, 5])
def test_tiny_pools_are_cut_too(images):
    pool = make_pool(images, 1.0)
    for split in (*splits.prior_splits(pool).values(), splits.mgca_split(pool, ""), splits.benchx_split(pool)):
        assert sorted(chain(*parts_of(split))) == sorted(pool.ids)
