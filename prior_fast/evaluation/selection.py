"""Choosing the images and the reports of an evaluation: by the rule of CheXpert 5x200, by one class, or by ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prior_fast.data.dataset_folder import read_info
from prior_fast.data.labelled_dataset import FORMAT as LABELLED
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation.config import EvaluationConfig
from prior_fast.evaluation.evaluation_source import EvaluationSource, prepared_source
from prior_fast.evaluation.id_lists import read_ids
from prior_fast.radiology.labels import CHEXPERT_LABELS, present
from prior_fast.spelling import nearest


@dataclass(frozen=True)
class Selection:
    """Selected positions in a source. A draw is ordered by class, and within a class as the source.

    Attributes:
        positions: int64 [N].
        truth: int64 [N], the class of each.
        pools: for each class, the number available to draw from.
    """

    positions: np.ndarray
    truth: np.ndarray
    pools: tuple[int, ...]

    def counts(self) -> list[int]:
        """The number selected of each class."""
        return np.bincount(self.truth, minlength=len(self.pools)).tolist()


@dataclass(frozen=True)
class Chosen:
    """A source and what was selected from it.

    Attributes:
        answers: the classes; for a single class, the class and its absence. The selection's truth is an index into it.
    """

    source: EvaluationSource
    selection: Selection
    answers: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.selection.positions)

    @property
    def truth(self) -> np.ndarray:
        """The class of each: int64 [N]."""
        return self.selection.truth

    @property
    def rows(self) -> np.ndarray:
        """The row of each image in the source's `images`: int64 [N]."""
        return self.source.rows[self.selection.positions]

    @property
    def ids(self) -> list[Any]:
        """Study ids or image ids."""
        return [self.source.ids[position] for position in self.selection.positions.tolist()]

    def sentences(self) -> list[list[str]]:
        """The sentences of each report."""
        return self.source.sentences(self.selection.positions)

    def shuffled(self, seed: int) -> "Chosen":
        """The same selection in a random order, which depends only on the seed and the number of items."""
        order = np.random.default_rng([seed, len(self)]).permutation(len(self))
        selection = Selection(self.selection.positions[order], self.truth[order], self.selection.pools)
        return Chosen(self.source, selection, self.answers)

    def facts(self) -> dict[str, Any]:
        """The numbers selected and available of each class."""
        return {
            **self.source.facts,
            "selected": len(self),
            "selected_per_class": dict(zip(self.answers, self.selection.counts())),
            "available_per_class": dict(zip(self.answers, self.selection.pools)),
        }


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
    return _draw(pools, per_class, [[seed, CHEXPERT_LABELS.index(name)] for name in classes])


def select_one_class(labels: np.ndarray, per_class: int, seed: int) -> Selection:
    """Draw up to `per_class` images with and without the class each: labels float32 [N]; class 0 is its presence."""
    shown = labels == 1
    return _draw([np.flatnonzero(shown), np.flatnonzero(~shown)], per_class, [[seed, 0], [seed, 1]])


def _draw(pools: Sequence[np.ndarray], per_class: int, seeds: Sequence[Sequence[int]]) -> Selection:
    chosen = [
        np.sort(np.random.default_rng(seed).choice(pool, per_class, replace=False)) if len(pool) > per_class else pool
        for pool, seed in zip(pools, seeds)
    ]
    truth = np.repeat(np.arange(len(pools)), [len(pool) for pool in chosen])
    return Selection(np.concatenate(chosen), truth, tuple(len(pool) for pool in pools))


def choose(
    source: EvaluationSource,
    config: EvaluationConfig,
    per_class: int,
    setting: Literal["image_ids", "report_ids"] = "image_ids",
) -> Chosen:
    """The images or the reports of an evaluation: those in the file of the setting `setting`, or a draw.

    Raises:
        UsageError: the dataset lacks a class, nothing has exactly one of the classes, or the file can't be used.
    """
    for name in config.classes:
        if name not in source.columns:
            hint = nearest(name, source.columns) or f": it has {', '.join(source.columns)}"
            raise UsageError(f"classes: {source.root} has no class {name!r}{hint}")
    if config.one_class:
        everything = select_one_class(source.labels[:, source.columns.index(config.classes[0])], per_class, config.seed)
        answers: tuple[str, ...] = (config.classes[0], f"no {config.classes[0]}")
    else:
        everything = select(source.labels, config.classes, per_class, config.seed, source.columns)
        answers = config.classes
    path = getattr(config, setting)
    selection = _by_ids(source, config, setting, path, answers, everything.pools) if path else everything
    if not len(selection.positions):
        raise UsageError(
            f"none of the {source.where} has exactly one of {', '.join(config.classes)}: name other classes=... or "
            "another --split"
        )
    return Chosen(source, selection, answers)


def _by_ids(
    source: EvaluationSource,
    config: EvaluationConfig,
    setting: str,
    path: str,
    answers: tuple[str, ...],
    pools: tuple[int, ...],
) -> Selection:
    """The positions of a file's ids, in its order. Their classes are those of the file, or else of the labels."""
    listed = read_ids(setting, path, answers)
    position_of = {str(name): position for position, name in enumerate(source.ids)}
    unknown = [name for name, _ in listed if name not in position_of]
    if unknown:
        raise UsageError(
            f"{setting}={path}: {len(unknown)} of its {len(listed)} ids, {unknown[0]} first, are not among "
            f"the {source.where}"
        )
    shown = present(source.labels, source.columns, config.classes)
    if config.one_class:
        shown = np.concatenate([shown, ~shown], axis=1)
    positions, truth = [], []
    for name, given in listed:
        position = position_of[name]
        if given is None and shown[position].sum() != 1:
            raise UsageError(
                f"{setting}={path}: {name} has {int(shown[position].sum())} of {', '.join(answers)} by the labels, "
                "not one: leave it out, or name its class in a column named class"
            )
        positions.append(position)
        truth.append(int(shown[position].argmax()) if given is None else given)
    return Selection(np.array(positions, np.int64), np.array(truth, np.int64), pools)


def open_reports(images: Chosen, config: EvaluationConfig) -> Chosen:
    """The reports to rank: those of the images' studies, or a draw from another dataset (supplement 3.3).

    Raises:
        UsageError: `reports` names no prepared dataset, or it is not set and the images have no reports.
    """
    if not config.reports:
        if not isinstance(images.source.dataset, PreparedDataset):
            raise UsageError(f"{images.source.root} has no reports: name a dataset with reports by reports=DIR")
        # Without another dataset, ids refer to the studies from which the images were chosen.
        return choose(images.source, config, config.per_class, "report_ids") if config.report_ids else images
    root = Path(config.reports)
    info = read_info(root)
    if info.get("format") == LABELLED:
        raise UsageError(
            f"reports={config.reports}: {info.get('name')} has images and labels, but no reports; give a dataset that "
            "`prior-fast prepare mimic` made"
        )
    split = None if config.reports_split == "all" else config.reports_split
    source = prepared_source(PreparedDataset.open(root, split))
    return choose(source, config, config.reports_per_class or max(images.selection.counts()), "report_ids")
