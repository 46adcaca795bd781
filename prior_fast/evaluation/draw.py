"""Drawing images or studies by their labels: by the rule of CheXpert 5x200, or by one class."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prior_fast.radiology.labels import CHEXPERT_LABELS, present


@dataclass(frozen=True)
class Selection:
    """Selected positions in a source. A draw is ordered by class, and within a class as the source.

    Attributes:
        positions: int64 [N].
        truth: int64 [N], the class of each; zeros without classes.
        pools: for each class, the number available to draw from; () without classes.
    """

    positions: np.ndarray
    truth: np.ndarray
    pools: tuple[int, ...]

    def counts(self) -> list[int]:
        """The number selected of each class."""
        return np.bincount(self.truth, minlength=len(self.pools)).tolist()


def select(
    labels: np.ndarray,
    classes: Sequence[str],
    per_class: int,
    seed: int,
    columns: Sequence[str] = CHEXPERT_LABELS,
) -> Selection:
    """Draw up to `per_class` studies of each class among those with exactly one class.

    The draw of a class depends only on the seed and the class.
    """
    shown = present(labels, columns, classes)
    exclusive = shown.sum(axis=1) == 1
    pools = [np.flatnonzero(exclusive & shown[:, index]) for index in range(len(classes))]
    return _draw(pools, per_class, [[seed, _stream(name)] for name in classes])


def _stream(name: str) -> int:
    """The number of a class's own draw: the same in every dataset."""
    return CHEXPERT_LABELS.index(name) if name in CHEXPERT_LABELS else len(CHEXPERT_LABELS) + zlib.crc32(name.encode())


def select_one_class(labels: np.ndarray, per_class: int, seed: int) -> Selection:
    """Draw up to `per_class` images with the class and without it each: labels float32 or bool [N], 1 is present.

    Class 0 of the selection is its presence.
    """
    shown = labels == 1
    return _draw([np.flatnonzero(shown), np.flatnonzero(~shown)], per_class, [[seed, 0], [seed, 1]])


def _draw(pools: Sequence[np.ndarray], per_class: int, seeds: Sequence[Sequence[int]]) -> Selection:
    chosen = [
        np.sort(np.random.default_rng(seed).choice(pool, per_class, replace=False)) if len(pool) > per_class else pool
        for pool, seed in zip(pools, seeds)
    ]
    truth = np.repeat(np.arange(len(pools)), [len(pool) for pool in chosen])
    return Selection(np.concatenate(chosen), truth, tuple(len(pool) for pool in pools))


def lacking(shown: np.ndarray, classes: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each class that nothing has alone, with what to do.

    Args:
        shown: bool [N, len(classes)], which classes each image or study has.
    """
    alone = shown.sum(axis=1) == 1
    notes = []
    for index, name in enumerate(classes):
        own = shown[:, index]
        if (own & alone).any():
            continue
        if not own.any():
            notes.append(f"nothing here has {name}")
            continue
        others = shown[own].sum(axis=0)
        others[index] = 0
        most = int(others.argmax())
        notes.append(
            f"all {int(own.sum())} with {name} have another of the classes too, {int(others[most])} of them "
            f"{classes[most]}, so none is taken: leave one of the two out of classes=..., or ask zero-shot "
            f"for it alone (classes={name})"
        )
    return tuple(notes)
