"""MIMIC-CXR: the studies and images of the tables of MIMIC-CXR-JPG, JPEG or DICOM files, and the report files.

Layout: `mimic-cxr-2.0.0-{metadata,split,chexpert}.csv[.gz]` beside `files/`, images at
`files/p10/p10000032/s50414267/<dicom_id>.jpg`, reports at `files/p10/p10000032/s50414267.txt`.
"""

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from prior_fast.errors import UsageError
from prior_fast.prepare.csv_tables import find_csv, read_csv
from prior_fast.prepare.find_files import FileFinder, FileNotFound
from prior_fast.prepare.studies.location import location
from prior_fast.prepare.studies.mimic_folders import IMAGES, REPORTS, find_table, find_tree, folders_at_or_below
from prior_fast.prepare.studies.mimic_views import FRONTAL_VIEWS, VIEW_COLUMNS, view_of
from prior_fast.prepare.studies.plan import StudyPlan, digest, sorted_studies
from prior_fast.radiology.labels import CHEXPERT_LABELS
from prior_fast.radiology.study import SPLITS, AnnotationRow, Rejection, Report, Study, StudyImage, Tree

HELP = "MIMIC-CXR: a tree in MIMIC-CXR-JPG's layout, or its DICOM files with the tables of MIMIC-CXR-JPG"
EXAMPLE = "--images mimic-cxr-jpg/2.0.0 --reports mimic-cxr/2.0.0"
# PRIOR leaves out reports with fewer than four sentences.
DEFAULTS = {"sections": "mimic", "min_sentences": 4}

METADATA, SPLIT, CHEXPERT = (f"mimic-cxr-2.0.0-{name}" for name in ("metadata", "split", "chexpert"))
ANNOTATIONS = "annotations"
# Longer numbers are no 64-bit integers.
_ID = re.compile(r"[ps]?0*([0-9]{1,18})(\.0)?")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the files are."""
    parser.add_argument(
        "--images",
        required=True,
        type=location,
        metavar="DIR",
        help="tree of the images, its folder files, or a folder above",
    )
    parser.add_argument(
        "--reports",
        type=location,
        metavar="DIR",
        help="the same for the reports, unzipped (default: --images)",
    )
    parser.add_argument(
        "--tables",
        type=location,
        metavar="DIR",
        help="folder of the tables (default: in or above the tree)",
    )
    parser.add_argument(
        "--view-fallback",
        action="store_true",
        help="where ViewPosition is blank, take the view from the view code or the procedure",
    )


@dataclass(frozen=True, slots=True)
class _Image:
    dicom_id: str
    subject_id: int
    study_id: int
    view: str | None
    split: str | None


def read(images: str, reports: str | None = None, tables: str | None = None, view_fallback: bool = False) -> StudyPlan:
    """Read the tables and sort the studies.

    Args:
        images: the tree's root, its `files` folder, or a folder above.
        reports: the same for the reports; None if they are in the same tree.
        tables: the folder of the tables; None to look in and above the tree.
        view_fallback: whether the view of an image with a blank ViewPosition is taken from other columns.

    Raises:
        UsageError: a folder or a table is missing, or a table can't be used.
    """
    image_tree = find_tree(Path(images), "--images", IMAGES)
    report_tree = image_tree if reports is None else find_tree(Path(reports), "--reports", REPORTS)
    folders = _table_folders(Path(images), image_tree, tables)
    metadata, split = _need_table(images, folders, METADATA), _need_table(images, folders, SPLIT)
    chexpert = find_table(folders, "chexpert")
    marks = next((path for folder in folders if (path := find_csv(folder, ANNOTATIONS))), None)
    notes = [] if chexpert else [f"{CHEXPERT}.csv was not found: all labels are blank"]
    by_study, rejections, taken = _read_images(metadata, split, view_fallback)
    if taken:
        notes.append(f"{taken} image(s) with a blank ViewPosition have the view of their view code or procedure")
    labels, annotations = _read_labels(chexpert), _read_annotations(marks)
    finder = FileFinder(image_tree.root)
    studies: list[Study] = []
    for study_id in sorted(by_study):
        chosen = _choose(by_study[study_id], image_tree, report_tree, finder, labels.get(study_id), annotations)
        if isinstance(chosen, Study):
            studies.append(chosen)
        else:
            rejections.append(chosen)
    if finder.elsewhere:
        notes.append(f"{finder.elsewhere} image(s) have another path or format than MIMIC-CXR-JPG's")
    blank = sum(image.view is None for group in by_study.values() for image in group)
    if blank:
        hint = "" if view_fallback else "; --view-fallback takes the view from the view code or the procedure"
        notes.append(f"{blank} image(s) have a blank ViewPosition and were left out{hint}")
    read_tables = [metadata, split, chexpert, marks]
    understood = [
        ("images", f"{image_tree.root / image_tree.prefix}"),
        ("reports", f"{report_tree.root / report_tree.prefix}"),
        ("tables", ", ".join(str(path) for path in read_tables if path)),
    ]
    arguments = (image_tree.root, report_tree.root, sorted_studies(studies), rejections, notes, digest(read_tables))
    return StudyPlan(*arguments, understood=understood)


def _table_folders(images: Path, tree: Tree, tables: str | None) -> list[Path]:
    """The folders in which a table is looked for, in this order."""
    if tables is not None:
        if not Path(tables).is_dir():
            raise UsageError(f"--tables {tables}: there is no such folder")
        return [Path(tables)]
    near = [images, images.resolve().parent, tree.root, tree.root.resolve().parent]
    return [*near, *folders_at_or_below(images)]


def _need_table(images: str, folders: list[Path], name: str) -> Path:
    path = find_table(folders, name.rpartition("-")[2])
    if path is None:
        raise UsageError(
            f"--images {images}: {name}.csv (or .csv.gz) is neither in it nor in its parent folder nor beside its "
            "tree; it belongs to MIMIC-CXR-JPG: name its folder with --tables"
        )
    return path


def _read_images(
    metadata: Path, split: Path, view_fallback: bool
) -> tuple[dict[int, list[_Image]], list[Rejection], int]:
    """The images of each study, a rejection for each image that is only in the split table, and the views taken."""
    table = read_csv(split, {"dicom_id": pa.string(), "study_id": pa.string(), "split": pa.string()})
    splits: dict[str, str] = {}
    studies: dict[str, int] = {}
    for dicom_id, study_id, name in zip(*(column.to_pylist() for column in table.columns)):
        name = name.strip().lower()
        if name not in SPLITS:
            raise UsageError(f"{split}: split {name!r} of {dicom_id} is none of {', '.join(SPLITS)}")
        if splits.setdefault(dicom_id, name) != name:
            raise UsageError(f"{split}: {dicom_id} is there twice, as {splits[dicom_id]} and as {name}")
        studies[dicom_id] = _number(split, "study_id", study_id)
    names = dict.fromkeys(("dicom_id", "subject_id", "study_id", "ViewPosition"), pa.string())
    more = dict.fromkeys(VIEW_COLUMNS, pa.string()) if view_fallback else {}
    table = read_csv(metadata, {**names, **more}, nullable=("ViewPosition", *more))
    images: dict[str, _Image] = {}
    taken = 0
    for dicom_id, subject_id, study_id, view, *others in zip(*(column.to_pylist() for column in table.columns)):
        view = (view or "").strip().upper() or None
        if view is None and view_fallback:
            view = view_of(*others)
            taken += view is not None
        ids = (_number(metadata, "subject_id", subject_id), _number(metadata, "study_id", study_id))
        image = _Image(dicom_id, *ids, view, splits.get(dicom_id))
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
    return by_study, strangers, taken


def _number(path: Path, column: str, text: str) -> int:
    """An id with or without its letter: p10000032, 10000032."""
    found = _ID.fullmatch(text.strip().lower())
    if not found:
        raise UsageError(
            f"{path}: {column} {text!r} is no number, with or without a letter before it, of up to 18 digits"
        )
    return int(found[1])


def _choose(
    images: list[_Image],
    tree: Tree,
    reports: Tree,
    finder: FileFinder,
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
            kind = "not a frontal view" if image.view else "ViewPosition is blank"
            left_out.append(Rejection(study_id, path, kind, f"(ViewPosition {image.view})" if image.view else ""))
        elif image.split is None:
            left_out.append(Rejection(study_id, path, f"not in {SPLIT}.csv"))
        else:
            frontal.append(StudyImage(image.dicom_id, _found(finder, path)))
    if not frontal:
        views = sorted({image.view or "empty" for image in images})
        kind = "no frontal view" if views != ["empty"] else "no frontal view, ViewPosition is blank"
        return Rejection(study_id, folder, kind, f"(ViewPosition {', '.join(views)})", whole_study=True)
    rows = tuple(row for image in frontal for row in annotations.get(image.image_id, ()))
    report = Report(reports.report(subject_id, study_id))
    parts = (tuple(frontal), report, tuple(left_out), labels, rows)
    return Study(study_id, subject_id, splits[0], *parts, place=folder)


def _found(finder: FileFinder, path: str) -> str:
    """The path of the image, also in another format or folder; the expected one if there is no such file."""
    try:
        return finder.find(path)
    except FileNotFound:
        return path


def _read_labels(path: Path | None) -> dict[int, tuple[float | None, ...]]:
    """The labels of each study of the CheXpert table."""
    if path is None:
        return {}
    columns = {"study_id": pa.string(), **dict.fromkeys(CHEXPERT_LABELS, pa.float32())}
    table = read_csv(path, columns, nullable=CHEXPERT_LABELS)
    labels: dict[int, tuple[float | None, ...]] = {}
    for text, *values in zip(*(column.to_pylist() for column in table.columns)):
        study_id = _number(path, "study_id", text)
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
