"""Collecting studies from any source: rows become studies with numbers, splits, files that exist, and labels."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from prior_fast.data.prepared_dataset import MANIFEST_COLUMNS
from prior_fast.errors import UsageError
from prior_fast.prepare.find_files import IMAGE_SUFFIXES, TEXT_SUFFIXES, FileFinder, FileNotFound, LeadsOutside
from prior_fast.prepare.paths import BAD_NAME, OUTSIDE, bad_name
from prior_fast.prepare.split_words import SPLIT_WORDS
from prior_fast.prepare.studies.plan import StudyPlan, digest, sorted_studies
from prior_fast.radiology.study import SPLITS, Rejection, Report, Study, StudyImage

IMAGE_MISSING = "image missing"
_FRONTAL = ("ap", "pa", "frontal", "posteroanterior", "anteroposterior")
# Views that are known not to be frontal, by their beginnings; others are named where they are many.
_NOT_FRONTAL = ("lat", "ll", "lao", "rao")
_MANY = 0.1  # of the images


@dataclass
class _Collected:
    subject: str
    split: str | None
    report: Report | None = None
    images: dict[str, None] = field(default_factory=dict)
    left_out: list[Rejection] = field(default_factory=list)
    labels: dict[str, float] = field(default_factory=dict)
    wrong: str = ""


class StudyBuilder:
    """Studies under construction.

    `add` is called for each row of the source, several times for a study with several images. `plan` makes the plan.

    Args:
        images: the folder of the images.
        reports: the folder of the report files; None if they are in the folder of the images.
        classes: the names of the labels.

    Raises:
        UsageError: a label has the name of another column of the dataset.
    """

    def __init__(self, images: Path, reports: Path | None = None, classes: Sequence[str] = ()) -> None:
        if taken := [name for name in classes if name in MANIFEST_COLUMNS]:
            raise UsageError(f"a label can't be named {taken[0]!r}, which is a column of every dataset; rename it")
        if wrong := [name for name in classes if bad_name(name)]:
            raise UsageError(f"a label can't be named {wrong[0]!a}: {bad_name(wrong[0])}; rename it")
        self.images, self.reports, self.classes = images, reports or images, tuple(classes)
        self.image_files = FileFinder(images, IMAGE_SUFFIXES)
        self.report_files = FileFinder(self.reports, TEXT_SUFFIXES)
        self.notes: list[str] = []
        self.understood: list[tuple[str, str]] = []
        self._studies: dict[str, _Collected] = {}
        self.beside: Path | None = None
        self._refused: dict[str, Rejection] = {}
        self._rejections: list[Rejection] = []
        self._images, self._unknown_views = 0, Counter[str]()

    def add(
        self,
        study: str,
        images: Iterable[str],
        report: Report | None,
        subject: str = "",
        split: str | None = None,
        view: str | None = None,
        labels: Mapping[str, float] | None = None,
    ) -> None:
        """Add a row of the source.

        Args:
            study: the name of the study; rows of one name are one study.
            images: paths relative to the folder of the images, which need not be exact (`FileFinder`); a folder stands
                for the images in it.
            report: None where the row has none; another row of the study may have it.
            subject: "" if the source names none: each study then has its own.
            split: a usual name of a split, in any case; None to assign one by the subject.
            view: AP, PA or frontal for a frontal view, in any case and with dots or dashes; None if it is not said.
            labels: 1, 0 or -1 by class; absent where blank.
        """
        if reason := bad_name(study) or bad_name(subject):
            self.refuse(study, "", BAD_NAME, f"({reason})")
            return
        report = _plain(report)
        named = SPLIT_WORDS.get(split.strip().lower(), f"?{split}") if split else None
        found = self._studies.setdefault(study, _Collected(subject, named))
        if (subject, named) != (found.subject, found.split):
            found.wrong = found.wrong or "its rows have different subjects or splits"
        if report is not None and found.report not in (None, report):
            found.wrong = found.wrong or "its rows have different reports"
        found.report = found.report or report
        for name, value in (labels or {}).items():
            if found.labels.setdefault(name, value) != value:
                found.wrong = found.wrong or f"its rows have different labels for {name}"
        for path in images:
            self._images += 1
            if view is not None and (letters := re.sub(r"[\W_]", "", view.lower())) not in _FRONTAL:
                if not letters.startswith(_NOT_FRONTAL):
                    self._unknown_views[view.strip()] += 1
                found.left_out.append(Rejection(0, path, "not a frontal view", f"({view.strip()})", study=study))
            else:
                found.images.setdefault(path)

    def reject(self, study: str, file: str, kind: str, detail: str = "") -> None:
        """Leave out a study because of the source's tables."""
        self._rejections.append(Rejection(0, file, kind, detail, whole_study=True, study=study))

    def refuse(self, study: str, file: str, kind: str, detail: str = "") -> None:
        """Leave out a study because of one of its rows, whatever the others say."""
        self._studies.pop(study, None)
        self._refused.setdefault(study, Rejection(0, file, kind, detail, broken=True, whole_study=True, study=study))

    def plan(self, tables: Sequence[Path], where: str = "") -> StudyPlan:
        """The plan.

        Args:
            tables: the files that decide about the studies, for the digest.
            where: the file that names the studies, for rejections without another file.
        """
        kept: dict[str, _Collected] = {}
        files: dict[str, list[StudyImage]] = {}
        self._rejections += self._refused.values()
        for name, found in self._studies.items():
            if name in self._refused:
                continue
            reason = self._reason(name, found, where, files)
            if reason is None:
                kept[name] = found
            else:
                self._rejections.append(reason)
        numbers, subjects = _numbers(kept), _numbers({found.subject or name for name, found in kept.items()})
        hashed = sum(found.split is None for found in kept.values())
        if hashed:
            self.notes.append(
                f"{hashed} studies have no split of their own: about 80 % of the subjects are to train, 10 % to "
                "validate and 10 % to test, by a hash of the subject's name"
            )
        if nameless := sum(not found.subject for found in kept.values()):
            self.notes.append(f"{nameless} studies name no subject: each counts as a subject of its own")
        if self._unknown_views.total() > _MANY * self._images:
            names = ", ".join(f"{view!r} {count}" for view, count in self._unknown_views.most_common(5))
            self.notes.append(f"images left out because their view is none of AP, PA and frontal: {names}")
        if elsewhere := self.image_files.elsewhere + self.report_files.elsewhere:
            self.notes.append(f"{elsewhere} file(s) were found in another folder or format than the source names")
        studies = [
            Study(
                numbers[name],
                subjects[found.subject or name],
                found.split or split_of(found.subject or name),
                tuple(files[name]),
                found.report,  # type: ignore[arg-type]
                tuple(found.left_out),
                tuple(found.labels.get(label) for label in self.classes) if found.labels else None,
                name=name,
                subject=found.subject or name,
                place=found.report.path if found.report and found.report.path else where,
            )
            for name, found in kept.items()
        ]
        arguments = (self.images, self.reports, sorted_studies(studies), self._rejections, self.notes)
        return StudyPlan(*arguments, digest(list(tables)), self.classes, self.understood, self.beside)

    def _reason(self, name: str, found: _Collected, where: str, files: dict[str, list[StudyImage]]) -> Rejection | None:
        """Why the study is left out; otherwise None, with its image files in `files`."""

        def rejection(file: str, kind: str, detail: str = "", broken: bool = False) -> Rejection:
            return Rejection(0, file, kind, detail, broken, whole_study=True, study=name)

        if found.wrong:
            return rejection(where, "contradicting rows", f"({found.wrong})")
        if found.split is not None and found.split not in SPLITS:
            known = "train, validate, test"
            return rejection(
                where, "unknown split", f"({found.split[1:]!r}, not one of {known} or a usual name of them)"
            )
        if found.report is None:
            return rejection(where, "no report")
        missing = []
        there: list[StudyImage] = []
        for path in found.images:
            try:
                files_of_path = self.image_files.find_all(path)
            except LeadsOutside:
                missing.append(Rejection(0, path, OUTSIDE, broken=True, study=name))
                continue
            except FileNotFound as error:
                missing.append(Rejection(0, path, IMAGE_MISSING, f"({error})", broken=True, study=name))
                continue
            for file in files_of_path:
                used = {image.image_id for image in there}
                stem = PurePosixPath(file).stem
                there.append(StudyImage(file if stem in used else stem, file))
        if not there and not missing:
            views = sorted({left.detail for left in found.left_out})
            return rejection(where, "no frontal view" if views else "no image", ", ".join(views))
        if not there:
            return rejection(missing[0].file, missing[0].kind, missing[0].detail, broken=True)
        found.left_out += missing
        files[name] = there
        return None


def _plain(report: Report | None) -> Report | None:
    """The report with U+FFFD for halves of UTF-16 pairs, which JSON can hold and no text has."""
    if report is None:
        return None
    sections = None if report.sections is None else tuple(map(_whole_pairs, report.sections))
    return replace(report, text=report.text and _whole_pairs(report.text), sections=sections)


def _whole_pairs(text: str) -> str:
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def split_of(subject: str) -> str:
    """The split of a subject: 80, 10 and 10 % of the range of SHA-256, on every machine alike."""
    share = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.8 else "validate" if share < 0.9 else "test"


def _numbers(names: Iterable[str]) -> dict[str, int]:
    """A number for each name: itself if all are plain numbers, else its place in their sorted order, from 1."""
    ordered = sorted(set(names))
    if all(name.isascii() and name.isdigit() and len(name) < 19 and str(int(name)) == name for name in ordered):
        return {name: int(name) for name in ordered}
    return {name: place for place, name in enumerate(ordered, 1)}
