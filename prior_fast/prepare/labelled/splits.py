"""Splits of a labelled dataset into training, validation and test parts, with 1 % and 10 % of the training part.

Each function's split depends only on the images and the seed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prior_fast.data.labelled_dataset import PERCENTAGES
from prior_fast.prepare.labelled.write import SplitLists

_FOLDS = 5
_SEEDS = 5


@dataclass(frozen=True)
class Pool:
    """The images to split.

    Attributes:
        ids: unique, in the order of the dataset.
        patients: the patient of each image.
        positive: whether each image counts as positive in lists that keep the share of positives.
    """

    ids: Sequence[str]
    patients: Sequence[str]
    positive: Sequence[bool]

    def only(self, wanted: Sequence[bool]) -> "Pool":
        """The pool of the images whose entry in `wanted` is true."""
        rows = np.flatnonzero(wanted).tolist()
        ids, patients = ([column[row] for row in rows] for column in (self.ids, self.patients))
        return Pool(ids, patients, [self.positive[row] for row in rows])


def prior_splits(pool: Pool) -> dict[str, SplitLists]:
    """PRIOR's 6:2:2 splits with five seeds, by patient, which is our choice.

    The supplement states none; its authors give the shares and the five runs in issue 12 of QtacierP/PRIOR.
    """
    return {f"prior-{seed}": _prior_split(pool, seed) for seed in range(_SEEDS)}


def _prior_split(pool: Pool, seed: int) -> SplitLists:
    patients = sorted(set(pool.patients))
    order = np.random.default_rng(seed).permutation(len(patients))
    ends = round(0.6 * len(patients)), round(0.8 * len(patients))
    part_of = {patients[row]: int(np.searchsorted(ends, place, side="right")) for place, row in enumerate(order)}
    train, validate, test = (pool.only([part_of[name] == part for name in pool.patients]) for part in range(3))
    return SplitLists(
        f"60, 20 and 20 % of the patients, drawn with seed {seed}: PRIOR's shares, five runs with different seeds",
        stratified_percentages(train, seed),
        validate.ids,
        test.ids,
    )


def fold_splits(pool: Pool) -> dict[str, SplitLists]:
    """Five folds of only the positive images, PRIOR's for segmentation and detection (issue 12 of QtacierP/PRIOR).

    Fold i is the test part and fold i+1 the validation part. The authors do not specify this.
    """
    positives = pool.only(pool.positive)
    order = np.random.default_rng(0).permutation(len(positives.ids))
    fold_of = np.empty(len(order), np.int64)
    fold_of[order] = np.arange(len(order)) % _FOLDS
    splits = {}
    for fold in range(_FOLDS):
        following = (fold + 1) % _FOLDS
        train = positives.only((fold_of != fold) & (fold_of != following))
        splits[f"folds-{fold}"] = SplitLists(
            f"positives only, five folds: fold {fold} tests, fold {following} validates, three train",
            stratified_percentages(train, fold),
            positives.only(fold_of == following).ids,
            positives.only(fold_of == fold).ids,
        )
    return splits


def benchx_split(pool: Pool) -> SplitLists:
    """BenchX's shares: 70, 15 and 15 % of the positive images and of the other images, drawn with seed 0."""
    rng, part_of = np.random.default_rng(0), np.empty(len(pool.ids), np.int64)
    for value in (True, False):
        rows = rng.permutation(np.flatnonzero(np.asarray(pool.positive, bool) == value))
        ends = round(0.7 * len(rows)), round(0.85 * len(rows))
        part_of[rows] = np.searchsorted(ends, np.arange(len(rows)), side="right")
    return SplitLists(
        "70, 15 and 15 % of the positives and of the others, drawn with seed 0: BenchX's shares, not its lists",
        stratified_percentages(pool.only(part_of == 0), 0),
        pool.only(part_of == 1).ids,
        pool.only(part_of == 2).ids,
    )


def mgca_split(pool: Pool, remark: str) -> SplitLists:
    """MGCA's split of RSNA: 70, 15 and 15 % of the images, sorted by id, by `train_test_split(random_state=0)`.

    remark: text about this dataset that is appended to the rule.
    """
    from sklearn.model_selection import train_test_split

    ids = sorted(pool.ids)
    if len(ids) < 4:
        train, validate, test = ids, [], []
    else:
        train, rest = train_test_split(ids, test_size=0.3, random_state=0)
        test, validate = train_test_split(rest, test_size=0.5, random_state=0)
    rule = f"70, 15 and 15 % by train_test_split(random_state=0), as MGCA draws them{remark}"
    return SplitLists(rule, sampled_percentages(train), validate, test)


def held_out_patients(pool: Pool, images: int, seed: int) -> Sequence[bool]:
    """Whether each image is held out. Whole patients are drawn until they have at least `images` images."""
    patients = sorted(set(pool.patients))
    order = np.random.RandomState(seed).permutation(len(patients))
    counts = dict.fromkeys(patients, 0)
    for name in pool.patients:
        counts[name] += 1
    totals = np.cumsum([counts[patients[row]] for row in order])
    needed = int(np.searchsorted(totals, images)) + 1 if images > 0 else 0
    chosen = {patients[row] for row in order[:needed]}
    return [name in chosen for name in pool.patients]


def stratified_percentages(train: Pool, seed: int) -> dict[int, list[str]]:
    """The ids of 1, 10 and 100 % of a training part; each list contains the smaller ones.

    A list has at least one image. It keeps the share of positives, and has at least one positive if the part has one.
    """
    rng, positive = np.random.default_rng([seed, 1]), np.asarray(train.positive, bool)
    marked, others = (rng.permutation(np.flatnonzero(positive == value)) for value in (True, False))
    lists = {}
    for percent in PERCENTAGES:
        count = min(len(positive), max(1, round(percent / 100 * len(positive))))
        quota = min(len(marked), max(1, round(percent / 100 * len(marked))))
        rows = np.concatenate([marked[:quota], others[: count - quota]])
        lists[percent] = [train.ids[row] for row in sorted(rows.tolist())]
    return lists


def sampled_percentages(train: Sequence[str]) -> dict[int, list[str]]:
    """The ids of 1, 10 and 100 % that pandas' `DataFrame.sample(frac, random_state=42)` draws, at least one."""
    order = np.random.RandomState(42).permutation(len(train))
    lists = {p: [train[row] for row in order[: max(1, round(p / 100 * len(train)))]] for p in PERCENTAGES}
    return {**lists, 100: list(train)}


def shared_patients(pool: Pool, split: SplitLists) -> int:
    """The number of patients that have images in more than one part of a split."""
    patient_of = dict(zip(pool.ids, pool.patients))
    parts = (split.train[100], split.validate, split.test)
    counts = Counter(patient for part in parts for patient in {patient_of[name] for name in part})
    return sum(count > 1 for count in counts.values())
