"""Studies: images of one examination with one report, and their paths in MIMIC-CXR's folders."""

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "validate", "test")


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """A row of annotations.csv. The box is in pixels of the full-size image; `mask` is a path in the tree or ""."""

    dicom_id: str
    finding: str
    side: str
    severity: str
    x: float
    y: float
    width: float
    height: float
    mask: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """A file or a study that is left out: a row of rejected.csv.

    Attributes:
        file: path relative to its tree.
        kind: the reason without details; rejections are counted by it.
        detail: the details of the reason.
        broken: whether a file is missing or can't be read; False if a filter left it out.
        whole_study: whether the whole study is left out, not only the file.
    """

    study_id: int
    file: str
    kind: str
    detail: str = ""
    broken: bool = False
    whole_study: bool = False

    @property
    def reason(self) -> str:
        """One line: the kind and the details."""
        return " ".join(f"{self.kind} {self.detail}".split())


@dataclass(frozen=True, slots=True)
class Study:
    """A study that has a frontal image and a split.

    Attributes:
        frontal: dicom ids of the frontal images, sorted.
        left_out: its other images, each with the reason found in the tables.
        labels: the 14 CheXpert labels, None where blank; None when the table has no row for the study.
        annotations: the annotations of the frontal images.
    """

    study_id: int
    subject_id: int
    split: str
    frontal: tuple[str, ...]
    left_out: tuple[Rejection, ...] = ()
    labels: tuple[float | None, ...] | None = None
    annotations: tuple[AnnotationRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """The location of the subjects' folders: `root` / `prefix` / p10 / p10000032.

    Attributes:
        root: the folder to which the paths of images, reports and masks are relative.
        prefix: "files/", or "" if the folders p10, p11, ... are in the root.
    """

    root: Path
    prefix: str = "files/"

    def study(self, subject_id: int, study_id: int) -> str:
        """Path of a study's folder, relative to the root."""
        return f"{self.prefix}p{str(subject_id)[:2]}/p{subject_id}/s{study_id}"

    def image(self, subject_id: int, study_id: int, dicom_id: str) -> str:
        """Path of an image, relative to the root."""
        return f"{self.study(subject_id, study_id)}/{dicom_id}.jpg"

    def report(self, subject_id: int, study_id: int) -> str:
        """Path of a report, relative to the root."""
        return f"{self.study(subject_id, study_id)}.txt"
