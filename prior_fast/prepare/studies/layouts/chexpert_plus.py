"""CheXpert Plus: the reports of CheXpert, with JPEG, PNG or DICOM files."""

import argparse
import re
from pathlib import Path

from prior_fast.errors import UsageError
from prior_fast.prepare.any_table import Table, read_table
from prior_fast.prepare.studies.builder import StudyBuilder
from prior_fast.prepare.studies.label_columns import LabelColumns
from prior_fast.prepare.studies.location import folder, location
from prior_fast.prepare.studies.plan import StudyPlan
from prior_fast.radiology.labels import CHEXPERT_LABELS
from prior_fast.radiology.study import Report

HELP = "CheXpert Plus: df_chexpert_plus_240401.csv with CheXpert's JPEG files, or the PNG or DICOM files"
EXAMPLE = "--table df_chexpert_plus_240401.csv --images PNG"
DEFAULTS = {"sections": "tolerant", "min_sentences": 1}

_NAMES = ("path_to_image", "frontal_lateral", "deid_patient_id", "split", "report")
_SECTIONS = ("section_findings", "section_impression")
_STUDY = re.compile(r"(patient\d+)/(study\d+)/")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the files are."""
    parser.add_argument("--table", required=True, type=location, metavar="FILE", help="the csv, also .gz or Parquet")
    parser.add_argument("--images", required=True, type=location, metavar="DIR", help="folder of the images")
    parser.add_argument(
        "--labels",
        type=location,
        metavar="FILE",
        help="labels: report_fixed.json, findings_fixed.json, impression_fixed.json, or CheXpert's train.csv "
        "(default: no labels)",
    )


def read(table: str, images: str, labels: str | None = None) -> StudyPlan:
    """Read the csv. The sections are its columns; a report without them is searched for sections.

    Raises:
        UsageError: a file or a column is missing, or a label can't be used.
    """
    rows, root = read_table(Path(table)), folder("--images", images)
    columns = rows.needed(*_NAMES, *_SECTIONS)
    labels_of = _labels(read_table(Path(labels), "--labels")) if labels else {}
    builder = StudyBuilder(root, classes=CHEXPERT_LABELS if labels else ())
    for line, path, view, subject, split, text, findings, impression in zip(rows.lines, *columns):
        found = _STUDY.search(path or "")
        if path is None or found is None:
            detail = f"({path!r} has no patient and study)"
            builder.reject("", f"{rows.path.name}, line {line}", "path_to_image not understood", detail)
            continue
        sections = tuple(section for section in (findings, impression) if section)
        report = Report(sections=sections) if sections else Report(text=text) if text else None
        study = f"{found[1]}/{found[2]}"
        builder.add(study, [path], report, subject or found[1], split, view, labels_of.get(_key(path)))
    builder.understood = [("table", f"{rows.path}: {len(rows)} images"), ("images", str(root))]
    return builder.plan([rows.path, *([Path(labels)] if labels else [])], rows.path.name)


def _labels(table: Table) -> dict[str, dict[str, float]]:
    """The labels of each image by its path from train/ or valid/ on, without the extension."""
    path = str(table.find("--labels", None, ("path_to_image", "Path")))
    columns = LabelColumns.of(table, None)
    if set(columns.classes) != set(CHEXPERT_LABELS):
        missing = [name for name in CHEXPERT_LABELS if name not in columns.classes]
        raise UsageError(f"--labels {table.path}: it has no column {missing[0]!r}")
    names = table.texts(path)
    return {_key(name): columns.row(place, line) for place, (line, name) in enumerate(zip(table.lines, names)) if name}


def _key(path: str) -> str:
    found = re.search(r"(train|valid)/.*", path)
    return (found[0] if found else path).rsplit(".", 1)[0]
