"""Choosing the studies of an evaluation by the rule of CheXpert 5x200."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prior_fast.data.store import CHEXPERT_LABELS, PreparedDataset
from prior_fast.errors import UsageError

# The rule that all 1000 rows of the authors' CheXpert 5x200 list follow: an uncertain label counts as positive for
# these classes and as negative for the others; a blank one is negative.
UNCERTAIN_IS_POSITIVE = frozenset({"Atelectasis", "Edema", "Pleural Effusion"})


@dataclass(frozen=True)
class Selection:
    """Studies with exactly one of the classes, class after class, each in the dataset's order.

    Attributes:
        studies: int64 [N], numbers of the studies in their split.
        truth: int64 [N], the class of each.
        pools: for each class, how many studies there were to draw from.
    """

    studies: np.ndarray
    truth: np.ndarray
    pools: tuple[int, ...]

    def counts(self) -> list[int]:
        """Selected studies of each class."""
        return np.bincount(self.truth, minlength=len(self.pools)).tolist()


def positive(labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Which classes each study has: labels float32 [N, 14] as in `PreparedDataset` -> bool [N, classes]."""
    columns = [CHEXPERT_LABELS.index(name) for name in classes]
    uncertain = np.array([name in UNCERTAIN_IS_POSITIVE for name in classes])
    values = labels[:, columns]
    return (values == 1) | ((values == -1) & uncertain)


def select(labels: np.ndarray, classes: Sequence[str], per_class: int, seed: int) -> Selection:
    """Draw up to `per_class` studies of each class among those with exactly one class.

    The draw of a class depends on the seed and the class alone.
    """
    present = positive(labels, classes)
    exclusive = present.sum(axis=1) == 1
    chosen, pools = [], []
    for index, name in enumerate(classes):
        pool = np.flatnonzero(exclusive & present[:, index])
        pools.append(len(pool))
        if len(pool) > per_class:
            rng = np.random.default_rng([seed, CHEXPERT_LABELS.index(name)])
            pool = np.sort(rng.choice(pool, per_class, replace=False))
        chosen.append(pool)
    truth = np.repeat(np.arange(len(classes)), [len(pool) for pool in chosen])
    return Selection(np.concatenate(chosen), truth, tuple(pools))


def select_studies(dataset: PreparedDataset, classes: Sequence[str], per_class: int, seed: int) -> Selection:
    """`select` from a dataset's split.

    Raises:
        UsageError: no study has exactly one of the classes.
    """
    selection = select(dataset.labels, classes, per_class, seed)
    if not len(selection.studies):
        raise UsageError(
            f"none of the {len(dataset)} studies of the {dataset.split} split of {dataset.root} has exactly one of "
            f"{', '.join(classes)}: name other classes=... or another --split"
        )
    return selection
