"""The studies and images of a tree in MIMIC-CXR-JPG's layout, from its tables alone.

Layout: `mimic-cxr-2.0.0-{metadata,split,chexpert}.csv[.gz]` beside `files/`, images at
`files/p10/p10000032/s50414267/<dicom_id>.jpg`, reports at `files/p10/p10000032/s50414267.txt`.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from prior_fast.errors import UsageError
from prior_fast.prepare.csv_tables import find_csv, read_csv
from prior_fast.radiology.labels import CHEXPERT_LABELS
from prior_fast.radiology.study import SPLITS, AnnotationRow, Rejection, Study, Tree

FRONTAL_VIEWS = ("AP", "PA")
METADATA, SPLIT, CHEXPERT = (f"mimic-cxr-2.0.0-{name}" for name in ("metadata", "split", "chexpert"))
ANNOTATIONS = "annotations"


@dataclass(frozen=True)
class StudyPlan:
    """The studies to prepare.

    Attributes:
        studies: sorted by split (train, validate, test), then by id.
        rejections: studies and images that are left out because of the tables.
        notes: lines for the user.
        tables_digest: SHA-256 of the csv files.
    """

    images: Tree
    reports: Tree
    studies: list[Study]
    rejections: list[Rejection]
    notes: list[str]
    tables_digest: str

    def by_id(self) -> dict[int, Study]:
        """The studies, by their id."""
        return {study.study_id: study for study in self.studies}


@dataclass(frozen=True, slots=True)
class _Image:
    dicom_id: str
    subject_id: int
    study_id: int
    view: str | None
    split: str | None


def read_plan(images: Path, reports: Path | None = None) -> StudyPlan:
    """Read the tables of the tree at `images` and sort its studies.

    Args:
        images: the tree's root or its `files` folder.
        reports: the same for the reports; None if they are in the same tree.

    Raises:
        UsageError: a folder or a table is missing, or a table can't be used.
    """
    image_tree = find_tree(images, "--images")
    report_tree = image_tree if reports is None else find_tree(reports, "--reports")
    metadata, split = _need_table(images, METADATA), _need_table(images, SPLIT)
    chexpert, marks = _find_table(images, CHEXPERT), _find_table(images, ANNOTATIONS)
    notes = [] if chexpert else [f"{CHEXPERT}.csv was not found: all labels are blank"]
    by_study, rejections = _read_images(metadata, split)
    labels, annotations = _read_labels(chexpert), _read_annotations(marks)
    studies: list[Study] = []
    for study_id in sorted(by_study):
        chosen = _choose(by_study[study_id], image_tree, labels.get(study_id), annotations)
        if isinstance(chosen, Study):
            studies.append(chosen)
        else:
            rejections.append(chosen)
    studies.sort(key=lambda study: (SPLITS.index(study.split), study.study_id))
    return StudyPlan(image_tree, report_tree, studies, rejections, notes, _digest([metadata, split, chexpert, marks]))


def find_tree(folder: Path, option: str) -> Tree:
    """The tree at `folder`, which is its root, its `files` folder, or holds p10, p11, ... itself.

    Raises:
        UsageError: the folder is missing, a zip file, or not in MIMIC-CXR's layout; the message names `option`.
    """
    if folder.suffix == ".zip":
        raise UsageError(f"{option} {folder}: unzip the file and give the folder that holds its files/")
    if not folder.is_dir():
        raise UsageError(f"{option} {folder}: there is no such folder")
    if (folder / "files").is_dir():
        return Tree(folder)
    if any(child.is_dir() for child in folder.glob("p[0-9][0-9]")):
        return Tree(folder.parent) if folder.name == "files" else Tree(folder, "")
    zipped = min(folder.glob("*.zip"), default=None)
    hint = f"; unzip {zipped.name} first" if zipped else ", nor a folder p10, p11, ..."
    raise UsageError(f"{option} {folder}: there is no folder files/ in it{hint}")


def _find_table(folder: Path, name: str) -> Path | None:
    return find_csv(folder, name) or find_csv(folder.resolve().parent, name)


def _need_table(folder: Path, name: str) -> Path:
    path = _find_table(folder, name)
    if path is None:
        raise UsageError(f"--images {folder}: {name}.csv (or .csv.gz) is neither in it nor in its parent folder")
    return path


def _read_images(metadata: Path, split: Path) -> tuple[dict[int, list[_Image]], list[Rejection]]:
    """The images of each study, and a rejection for each image that is only in the split table."""
    table = read_csv(split, {"dicom_id": pa.string(), "study_id": pa.int64(), "split": pa.string()})
    splits: dict[str, str] = {}
    studies: dict[str, int] = {}
    for dicom_id, study_id, name in zip(*(column.to_pylist() for column in table.columns)):
        if name not in SPLITS:
            raise UsageError(f"{split}: split {name!r} of {dicom_id} is none of {', '.join(SPLITS)}")
        if splits.setdefault(dicom_id, name) != name:
            raise UsageError(f"{split}: {dicom_id} is there twice, as {splits[dicom_id]} and as {name}")
        studies[dicom_id] = study_id
    columns = {"dicom_id": pa.string(), "subject_id": pa.int64(), "study_id": pa.int64(), "ViewPosition": pa.string()}
    table = read_csv(metadata, columns, nullable=("ViewPosition",))
    images: dict[str, _Image] = {}
    for dicom_id, subject_id, study_id, view in zip(*(column.to_pylist() for column in table.columns)):
        image = _Image(dicom_id, subject_id, study_id, view, splits.get(dicom_id))
        if images.setdefault(dicom_id, image) != image:
            raise UsageError(f"{metadata}: {dicom_id} is there twice, with different values")
    by_study: dict[int, list[_Image]] = {}
    for image in images.values():
        by_study.setdefault(image.study_id, []).append(image)
    strangers = [
        Rejection(studies[dicom_id], split.name, f"not in {METADATA}.csv", f"({dicom_id})", whole_study=study_unknown)
        for dicom_id in splits
        if dicom_id not in images
        for study_unknown in [studies[dicom_id] not in by_study]
    ]
    return by_study, strangers


def _choose(
    images: list[_Image],
    tree: Tree,
    labels: tuple[float | None, ...] | None,
    annotations: dict[str, list[AnnotationRow]],
) -> Study | Rejection:
    """The study of these images, or the reason why it is rejected."""
    subject_id, study_id = images[0].subject_id, images[0].study_id
    folder = tree.study(subject_id, study_id)
    splits = sorted({image.split for image in images if image.split})
    if any(image.subject_id != subject_id for image in images):
        return Rejection(study_id, folder, "images of more than one subject", whole_study=True)
    if not splits:
        return Rejection(study_id, folder, f"not in {SPLIT}.csv", whole_study=True)
    if len(splits) > 1:
        return Rejection(study_id, folder, "images in different splits", f"({', '.join(splits)})", whole_study=True)
    frontal, left_out = [], []
    for image in sorted(images, key=lambda image: image.dicom_id):
        path = tree.image(subject_id, study_id, image.dicom_id)
        if image.view not in FRONTAL_VIEWS:
            view = f"(ViewPosition {image.view or 'empty'})"
            left_out.append(Rejection(study_id, path, "not a frontal view", view))
        elif image.split is None:
            left_out.append(Rejection(study_id, path, f"not in {SPLIT}.csv"))
        else:
            frontal.append(image.dicom_id)
    if not frontal:
        views = ", ".join(sorted({image.view or "empty" for image in images}))
        return Rejection(study_id, folder, "no frontal view", f"(ViewPosition {views})", whole_study=True)
    rows = tuple(row for dicom_id in frontal for row in annotations.get(dicom_id, ()))
    return Study(study_id, subject_id, splits[0], tuple(frontal), tuple(left_out), labels, rows)


def _read_labels(path: Path | None) -> dict[int, tuple[float | None, ...]]:
    """The labels of each study of the CheXpert table."""
    if path is None:
        return {}
    columns = {"study_id": pa.int64(), **dict.fromkeys(CHEXPERT_LABELS, pa.float32())}
    table = read_csv(path, columns, nullable=CHEXPERT_LABELS)
    labels: dict[int, tuple[float | None, ...]] = {}
    for study_id, *values in zip(*(column.to_pylist() for column in table.columns)):
        for name, value in zip(CHEXPERT_LABELS, values):
            if value not in (1.0, 0.0, -1.0, None):
                raise UsageError(f"{path}: {name!r} of study {study_id} is {value}, not 1, 0, -1 or empty")
        if labels.setdefault(study_id, tuple(values)) != tuple(values):
            raise UsageError(f"{path}: study {study_id} is there twice, with different labels")
    return labels


def _read_annotations(path: Path | None) -> dict[str, list[AnnotationRow]]:
    """The annotations of each image, in the order of the file."""
    if path is None:
        return {}
    names = dict.fromkeys(("finding", "side", "severity"), pa.string())
    box = dict.fromkeys(("x", "y", "width", "height"), pa.float64())
    columns = {"dicom_id": pa.string(), **names, **box, "mask": pa.string()}
    table = read_csv(path, columns, nullable=("side", "severity", "mask"))
    annotations: dict[str, list[AnnotationRow]] = {}
    for row in table.to_pylist():
        if not all(math.isfinite(row[name]) for name in box) or min(row["width"], row["height"]) <= 0:
            raise UsageError(f"{path}: the box of {row['dicom_id']} ({row['finding']}) is empty or not finite")
        texts = {name: row[name] or "" for name in ("side", "severity", "mask")}
        annotations.setdefault(row["dicom_id"], []).append(AnnotationRow(**{**row, **texts}))
    return annotations


def _digest(paths: list[Path | None]) -> str:
    digests = [path and hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return hashlib.sha256(repr(digests).encode()).hexdigest()
