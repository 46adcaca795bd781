"""The source of images and reports: a split of a prepared dataset, or a part of a labelled dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from prior_fast.data.dataset_folder import Verify, read_info
from prior_fast.data.labelled_dataset import FORMAT as LABELLED
from prior_fast.data.labelled_dataset import PARTS, LabelledDataset
from prior_fast.data.prepared_dataset import Annotation, PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.spelling import nearest

WHOLE = "whole"


@dataclass(frozen=True)
class EvaluationSource:
    """Images with labels, numbered from 0.

    Attributes:
        dataset: the dataset of the images.
        where: a description for messages: "17 studies of the test split of prepared".
        images: uint8 [., 224, 224], memory-mapped, of the whole dataset.
        rows: int64 [N], the row of each in `images`.
        ids: names of studies, which are the study ids where the dataset has no other names, or image ids.
        labels: float32 [N, C], 1 present, 0 absent, -1 uncertain, nan blank.
        columns: the names of the labels' columns; () if the dataset has no labels.
        facts: entries of metrics.json.
    """

    dataset: PreparedDataset | LabelledDataset
    where: str
    images: np.ndarray
    rows: np.ndarray
    ids: list[str]
    labels: np.ndarray
    columns: tuple[str, ...]
    facts: dict[str, Any]

    @property
    def id_column(self) -> str:
        """The name of the ids: "study_id", "study" if they are names, or "image_id"."""
        if not isinstance(self.dataset, PreparedDataset):
            return "image_id"
        return "study_id" if self.ids == self.numbers else "study"

    @cached_property
    def numbers(self) -> list[str]:
        """The study ids as texts, by which studies can be named too; the image ids of a labelled dataset."""
        if not isinstance(self.dataset, PreparedDataset):
            return self.ids
        return [str(number) for number in self.dataset.study_ids.tolist()]

    @property
    def is_labelled(self) -> bool:
        """Whether there is any label that is not blank."""
        return bool(np.isfinite(self.labels).any())

    @property
    def root(self) -> Path:
        """The dataset's folder."""
        return self.dataset.root

    def sentences(self, positions: Sequence[int] | np.ndarray) -> list[list[str]]:
        """The sentences of each report.

        Raises:
            UsageError: the dataset has no reports.
        """
        if not isinstance(self.dataset, PreparedDataset):
            raise UsageError(f"{self.root} ({self.dataset.name}) has images and labels, but no reports")
        return [self.dataset.sentences(int(position)) for position in positions]

    def annotations(self) -> list[Annotation]:
        """The annotations of the images; an empty list if there are none.

        A labelled dataset gives its masks or filled boxes only if it has one class.
        """
        if isinstance(self.dataset, PreparedDataset):
            return self.dataset.annotations()
        if not self.dataset.has_masks or len(self.columns) != 1:
            return []
        marked = ((row, self.dataset.mask(row)) for row in self.rows[self.labels[:, 0] == 1].tolist())
        return [Annotation(row, self.columns[0], "", "", (0.0,) * 4, mask) for row, mask in marked]


def takes_all(info: dict[str, Any]) -> bool:
    """Whether all images of a dataset are evaluated: CheXpert 5x200, or a labelled dataset with one class."""
    return info.get("format") == LABELLED and (info.get("name") == "chexpert5x200" or len(info["classes"]) == 1)


def open_evaluation_source(path: Path, split: str, part_of: str, verify: Verify = "sizes") -> EvaluationSource:
    """Open a prepared or a labelled dataset; its dataset.json says which of them it is.

    Args:
        split: "train", "validate" or "test": a split of a prepared dataset, or a part of a labelled dataset's split.
        part_of: the labelled dataset's split, as in `EvaluationConfig`.
        verify: as in `PreparedDataset.open`.

    Raises:
        UsageError: there is no dataset, the split is unknown or empty, or `part_of` is given for a prepared dataset.
    """
    if read_info(path).get("format") == LABELLED:
        return labelled_source(LabelledDataset.open(path, verify), split, part_of)
    if part_of:
        raise UsageError(f"part_of={part_of} is for labelled datasets; {path} has reports, and --split names its split")
    return prepared_source(PreparedDataset.open(path, split, verify))


def prepared_source(dataset: PreparedDataset) -> EvaluationSource:
    """The studies of a prepared dataset, each with its first frontal image."""
    split = f"the {dataset.split} split" if dataset.split else "all splits"
    return EvaluationSource(
        dataset=dataset,
        where=f"{len(dataset)} studies of {split} of {dataset.root}",
        images=dataset.images,
        rows=dataset.image_begin,
        ids=dataset.study_names,
        labels=dataset.labels,
        columns=dataset.classes,
        facts={"path": str(dataset.root), "split": dataset.split or "all", "studies": len(dataset)},
    )


def labelled_source(dataset: LabelledDataset, split: str, part_of: str) -> EvaluationSource:
    """The images of a part of a labelled dataset's split, in the order of its list, or of the whole dataset."""
    rows, name = np.arange(len(dataset)), part_of or _default_split(dataset)
    where, facts = f"{len(dataset)} images of {dataset.root}", {"part_of": WHOLE}
    if name in dataset.split_names or name != WHOLE:
        if split not in PARTS:
            hint = nearest(split, PARTS) or f": choose from {', '.join(PARTS)}"
            raise UsageError(f"--split {split} is no part of a split{hint}")
        if name not in dataset.split_names:
            hint = nearest(name, [*dataset.split_names, WHOLE]) or "."
            raise UsageError(
                f"part_of={name}: {dataset.root} has no such split{hint} It has {', '.join(dataset.split_names)}; "
                f"{WHOLE} is every image"
            )
        rows = getattr(dataset.split(name), split)
        where = f"{len(rows)} images of the {split} part of {name} of {dataset.root}"
        facts = {"part_of": name, "split": split}
    if not len(rows):
        raise UsageError(f"{where}: there is none; give another --split, or another part_of=...")
    return EvaluationSource(
        dataset=dataset,
        where=where,
        images=dataset.images,
        rows=rows,
        ids=[dataset.image_ids[row] for row in rows.tolist()],
        labels=dataset.labels[rows],
        columns=dataset.classes,
        facts={"path": str(dataset.root), "dataset": dataset.name, **facts, "images": len(rows)},
    )


def _default_split(dataset: LabelledDataset) -> str:
    """The split "all" of CheXpert 5x200, whose test part has all images; else "prior-0", PRIOR's first split."""
    for name in ("all", "prior-0"):
        if name in dataset.split_names:
            return name
    raise UsageError(
        f"{dataset.root} has no split prior-0: name one with part_of=...: {', '.join(dataset.split_names)}"
    )
