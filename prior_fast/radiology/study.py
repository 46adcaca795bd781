"""Studies: images of one examination with one report, and the paths of MIMIC-CXR's folders."""

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
        file: path relative to its folder.
        kind: the reason without details; rejections are counted by it.
        detail: the details of the reason.
        broken: whether a file is missing or can't be read; False if a filter left it out.
        whole_study: whether the whole study is left out, not only the file.
        study: the name of the study in its source, where that is not the number.
    """

    study_id: int
    file: str
    kind: str
    detail: str = ""
    broken: bool = False
    whole_study: bool = False
    study: str = ""

    @property
    def shown_study(self) -> str:
        """The study as rejected.csv names it."""
        return self.study or f"{self.study_id:08d}"

    @property
    def reason(self) -> str:
        """One line: the kind and the details."""
        return " ".join(f"{self.kind} {self.detail}".split())


@dataclass(frozen=True, slots=True)
class StudyImage:
    """An image of a study: its id, and its path relative to the folder of the images."""

    image_id: str
    path: str


@dataclass(frozen=True, slots=True)
class Report:
    """Where the text of a report is: exactly one of the three is given.

    Attributes:
        path: a text file, relative to the folder of the reports.
        text: the whole report, in which sections are to be found.
        sections: texts that are sections already, findings before impression.
    """

    path: str = ""
    text: str | None = None
    sections: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """A study that has a frontal image and a split.

    Attributes:
        images: the frontal images, in the order of the dataset.
        left_out: its other images, each with the reason found in the tables.
        labels: one for each class of the plan: 1, 0, -1, None where blank; None when no table has labels of the study.
        annotations: the annotations of the frontal images.
        name, subject: the ids in the source as texts; "" where they are the numbers.
        place: its folder or its row in a table, to name a study that has neither a report file nor an image.
    """

    study_id: int
    subject_id: int
    split: str
    images: tuple[StudyImage, ...]
    report: Report
    left_out: tuple[Rejection, ...] = ()
    labels: tuple[float | None, ...] | None = None
    annotations: tuple[AnnotationRow, ...] = ()
    name: str = ""
    subject: str = ""
    place: str = ""

    def reject(self, file: str, kind: str, detail: str = "", broken: bool = False, whole: bool = False) -> Rejection:
        """A rejection of this study or of one of its files."""
        return Rejection(self.study_id, file, kind, detail, broken, whole, self.name)


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

    def image(self, subject_id: int, study_id: int, dicom_id: str, suffix: str = ".jpg") -> str:
        """Path of an image, relative to the root."""
        return f"{self.study(subject_id, study_id)}/{dicom_id}{suffix}"

    def report(self, subject_id: int, study_id: int) -> str:
        """Path of a report, relative to the root."""
        return f"{self.study(subject_id, study_id)}.txt"
