"""Choosing the images and the reports of an evaluation: by their labels, by ids, or all."""

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
from prior_fast.evaluation.draw import Selection, lacking, select, select_one_class
from prior_fast.evaluation.evaluation_source import EvaluationSource, prepared_source
from prior_fast.evaluation.id_lists import read_ids
from prior_fast.evaluation.read_sentences import draw_studies
from prior_fast.radiology.labels import present
from prior_fast.spelling import nearest


@dataclass(frozen=True)
class Chosen:
    """A source and what was selected from it.

    Attributes:
        answers: the classes; for a single class, the class and its absence; () for studies without classes. The
            selection's truth is an index into it.
        notes: sentences on what could not be selected.
    """

    source: EvaluationSource
    selection: Selection
    answers: tuple[str, ...]
    notes: tuple[str, ...] = ()

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
    def ids(self) -> list[str]:
        """The names of the studies, or image ids."""
        return [self.source.ids[position] for position in self.selection.positions.tolist()]

    @property
    def class_names(self) -> list[str]:
        """The class of each by its name; an empty list without classes."""
        return [self.answers[number] for number in self.truth.tolist()] if self.answers else []

    def sentences(self) -> list[list[str]]:
        """The sentences of each report."""
        return self.source.sentences(self.selection.positions)

    def shuffled(self, seed: int) -> "Chosen":
        """The same selection in a random order, which depends only on the seed and the number of items."""
        order = np.random.default_rng([seed, len(self)]).permutation(len(self))
        selection = Selection(self.selection.positions[order], self.truth[order], self.selection.pools)
        return Chosen(self.source, selection, self.answers, self.notes)

    def facts(self) -> dict[str, Any]:
        """The number selected, and the numbers selected and available of each class."""
        facts = {**self.source.facts, "selected": len(self)}
        if self.answers:
            facts["selected_per_class"] = dict(zip(self.answers, self.selection.counts()))
            facts["available_per_class"] = dict(zip(self.answers, self.selection.pools))
        return {**facts, **({"notes": list(self.notes)} if self.notes else {})}


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
            hint = nearest(name, source.columns) or f": it has {', '.join(source.columns) or 'no labels'}"
            raise UsageError(f"classes: {source.root} has no class {name!r}{hint}")
    shown = present(source.labels, source.columns, config.classes)
    if config.one_class:
        everything = select_one_class(shown[:, 0], per_class, config.seed)
        answers: tuple[str, ...] = (config.classes[0], f"no {config.classes[0]}")
    else:
        everything = select(source.labels, config.classes, per_class, config.seed, source.columns)
        answers = config.classes
    path = getattr(config, setting)
    selection = _by_ids(source, config, setting, path, answers, everything.pools) if path else everything
    if not len(selection.positions):
        raise UsageError(
            f"none of the {source.where} has exactly one of {', '.join(config.classes)}: name fewer or other "
            f"classes=... (zero-shot also takes one alone: classes={config.classes[0]}), or another --split"
        )
    notes = () if path or config.one_class else lacking(shown, config.classes)
    return Chosen(source, selection, answers, notes)


def choose_studies(source: EvaluationSource, config: EvaluationConfig) -> Chosen:
    """Studies without regard to classes: those in the file of `image_ids`, or up to `studies` of all, in their order.

    Raises:
        UsageError: the file can't be used.
    """
    assert isinstance(source.dataset, PreparedDataset)
    if config.image_ids:
        listed = read_ids("image_ids", config.image_ids)
        positions = np.array(_positions(source, "image_ids", config.image_ids, [name for name, _ in listed]), np.int64)
    else:
        positions = draw_studies(source.dataset, config.studies, config.seed)
    return Chosen(source, Selection(positions, np.zeros(len(positions), np.int64), ()), ())


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
    shown = present(source.labels, source.columns, config.classes)
    if config.one_class:
        shown = np.concatenate([shown, ~shown], axis=1)
    positions, truth = _positions(source, setting, path, [name for name, _ in listed]), []
    for position, (name, given) in zip(positions, listed):
        if given is None and shown[position].sum() != 1:
            raise UsageError(
                f"{setting}={path}: {name} has {int(shown[position].sum())} of {', '.join(answers)} by the labels, "
                "not one: leave it out, or name its class in a column named class"
            )
        truth.append(int(shown[position].argmax()) if given is None else given)
    return Selection(np.array(positions, np.int64), np.array(truth, np.int64), pools)


def _positions(source: EvaluationSource, setting: str, path: str, wanted: Sequence[str]) -> list[int]:
    """The positions of the studies or images of a file, which gives their names or, all of them, their numbers."""
    ways = [{name: position for position, name in enumerate(known)} for known in (source.ids, source.numbers)]
    unknown = [[name for name in wanted if name not in position_of] for position_of in ways]
    best = 0 if len(unknown[0]) <= len(unknown[1]) else 1
    if unknown[best]:
        raise UsageError(
            f"{setting}={path}: {len(unknown[best])} of its {len(wanted)} ids, {unknown[best][0]} first, are not among "
            f"the {source.where}"
        )
    return [ways[best][name] for name in wanted]


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
            "`prior-fast prepare` made from images with reports"
        )
    split = None if config.reports_split == "all" else config.reports_split
    source = prepared_source(PreparedDataset.open(root, split, config.verify))
    return choose(source, config, config.reports_per_class or max(images.selection.counts()), "report_ids")
