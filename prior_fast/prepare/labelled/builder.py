"""Collecting labelled images from any source: rows become images with files that exist, labels, boxes and splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from prior_fast.errors import UsageError
from prior_fast.prepare.find_files import FileFinder, FileNotFound, LeadsOutside, nearest_folder
from prior_fast.prepare.labelled import splits
from prior_fast.prepare.labelled.boxes import MarkedBox, with_boxes
from prior_fast.prepare.labelled.labelled_source import Candidate, Decoded, LabelledSource
from prior_fast.prepare.labelled.splits import Pool
from prior_fast.prepare.labelled.write import SplitLists
from prior_fast.prepare.paths import OUTSIDE, bad_name, path_inside
from prior_fast.prepare.split_words import SPLIT_WORDS
from prior_fast.radiology.xray import read_xray

_HELD_OUT = 0.1
# Joined rows: present counts more than uncertain, and that more than absent.
_WEIGHT = {1.0: 2, -1.0: 1, 0.0: 0}
_NORMAL = ("no finding", "no findings", "normal")


@dataclass
class _Image:
    patient: str
    part: str | None
    labels: dict[str, float] = field(default_factory=dict)
    boxes: list[MarkedBox] = field(default_factory=list)
    wrong: str = ""


class LabelledBuilder:
    """Labelled images under construction.

    `add` is called for each row of the source, several times for an image with several boxes. `source` ends it.

    Args:
        name: the name of the dataset.
        root: the folder of the images.
        classes: the names of the labels.
        join: whether the rows of an image are parts of its labels: what one row says of a class counts, and 1 counts
            more than -1, and -1 more than 0. Otherwise rows that differ contradict each other.
        box_size: (width, height) of the image to whose pixels the boxes refer; None for that of the file.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        classes: Sequence[str],
        join: bool = False,
        box_size: tuple[int, int] | None = None,
    ) -> None:
        if wrong := [label for label in classes if bad_name(label)]:
            raise UsageError(f"a class can't be named {wrong[0]!a}: {bad_name(wrong[0])}; rename it")
        self.name, self.root, self.classes, self.join = name, root, tuple(classes), join
        self.box_size = box_size
        self.notes: list[str] = []
        self.rejected: list[tuple[str, str]] = []
        self._files = FileFinder(root)
        self._images: dict[str, _Image] = {}

    def add(
        self,
        image: str,
        labels: Mapping[str, float],
        patient: str = "",
        part: str | None = None,
        boxes: Sequence[MarkedBox] = (),
    ) -> None:
        """Add a row of the source.

        Args:
            image: a path relative to the folder of the images, which need not be exact (`FileFinder`).
            labels: 1, 0 or -1 by class; absent where blank.
            patient: "" if the source names none: the image then counts as a patient.
            part: the part of the source's own split, by a usual name in any case; None if it has none.
            boxes: in pixels of the file's image, or as `box_size` says.
        """
        word = SPLIT_WORDS.get(part.strip().lower(), f"?{part}") if part else None
        found = self._images.setdefault(image, _Image(patient, word))
        if (patient, word) != (found.patient, found.part):
            found.wrong = found.wrong or "its rows have different patients or splits"
        if word is not None and word.startswith("?"):
            found.wrong = found.wrong or f"the split is {part!r}, not train, validate, test or a usual name of them"
        for name, value in labels.items():
            known = found.labels.setdefault(name, value)
            if known != value and self.join:
                found.labels[name] = max(known, value, key=_WEIGHT.__getitem__)
            elif known != value:
                found.wrong = found.wrong or f"its rows have different labels for {name}"
        found.boxes += [box for box in boxes if box not in found.boxes]

    def reject(self, image: str, reason: str) -> None:
        """Leave out an image or a row because of the source's tables."""
        self.rejected.append((image, reason))

    def source(self, own_split: str = "own") -> LabelledSource:
        """The dataset.

        Args:
            own_split: the name of the source's own split, if it has one.

        Raises:
            UsageError: no image of the source is in the folder; the message names one that was looked for.
        """
        candidates: list[Candidate] = []
        parts: dict[str, str] = {}
        name_of: dict[str, str] = {}
        for name, found in self._images.items():
            if found.wrong:
                self.reject(name, found.wrong)
                continue
            try:
                path = self._files.find(name)
            except LeadsOutside:
                self.reject(name, OUTSIDE)
                continue
            except FileNotFound as error:
                self.reject(name, f"image missing: {error}")
                continue
            if path in name_of:
                self.reject(name, f"the file is that of {name_of[path]}, too: give both rows one name")
                continue
            name_of[path] = name
            labels = tuple(found.labels.get(label, float("nan")) for label in self.classes)
            facts = (name, found.patient or name, labels, tuple(found.boxes))
            candidates.append(Candidate(self.root / path, *facts))
            if found.part is not None:
                parts[name] = found.part
        if not candidates:
            first = next(iter(self._images), None)
            looked = self._nearest(first) if first else "the table names none"
            raise UsageError(f"no image of the table can be used: {looked}; --images names the folder")
        if self._files.elsewhere:
            self.notes.append(f"{self._files.elsewhere} image(s) were found in another folder or format")
        if not any(found.patient for found in self._images.values()):
            self.notes.append("no patient is named: each image counts as a patient of its own")
        if parts and len(parts) < len(candidates):
            self.notes.append(f"{len(candidates) - len(parts)} image(s) name no part and are not in {own_split}")
        findings = [number for number, label in enumerate(self.classes) if label.lower() not in _NORMAL]
        has_boxes = any(candidate.annotations for candidate in candidates)
        return LabelledSource(
            *(self.name, self.classes, self.root, candidates),
            partial(decode, box_size=self.box_size, mask=len(self.classes) == 1),
            lambda pool: _splits(pool, parts, own_split),
            positive=lambda record: any(record.labels[number] == 1 for number in findings),
            has_boxes=has_boxes,
            has_masks=has_boxes and len(self.classes) == 1,
            rejected=self.rejected,
            notes=self.notes,
        )

    def _nearest(self, name: str) -> str:
        """What is there instead of an image; nothing is said of other folders than that of the images."""
        path = None if bad_name(name) else path_inside(self.root, name)
        return nearest_folder(self.root / path) if path else f"{name[:60]!a} {OUTSIDE} or can't be a name"


def decode(candidate: Candidate, box_size: tuple[int, int] | None, mask: bool) -> Decoded:
    """Decode an image and scale its boxes.

    Args:
        box_size: as in `LabelledBuilder`.
        mask: whether the filled boxes are the image's mask, as in a dataset with one class.

    Raises:
        UnreadableImage: the file is broken.
    """
    image, size = read_xray(candidate.path)
    return with_boxes(candidate, image, box_size or size, mask)


def _splits(pool: Pool, parts: Mapping[str, str], own_split: str) -> dict[str, SplitLists]:
    """The source's own split, if it has one, and PRIOR's."""
    own = {own_split: _own(pool, parts)} if parts else {}
    return {**own, **splits.prior_splits(pool)}


def _own(pool: Pool, parts: Mapping[str, str]) -> SplitLists:
    """The source's own split. Without a validation part, 10 % of the training images are held out, by patient."""
    train, validate, test = (
        pool.only([parts.get(name) == part for name in pool.ids]) for part in ("train", "validate", "test")
    )
    rule = "the source's own split"
    if not validate.ids:
        held = np.asarray(splits.held_out_patients(train, round(_HELD_OUT * len(train.ids)), 0), bool)
        train, validate = train.only((~held).tolist()), train.only(held.tolist())
        rule += "; to validate, 10 % of the training images, drawn by patient with seed 0"
    return SplitLists(rule, splits.stratified_percentages(train, 0), validate.ids, test.ids)
