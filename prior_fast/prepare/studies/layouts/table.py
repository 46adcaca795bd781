"""Any X-rays with reports: a table that names the images and has the reports, or names their files."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prior_fast.errors import UsageError
from prior_fast.prepare.any_table import Table, cell_text, read_table, shown_list
from prior_fast.prepare.find_files import IMAGE_SUFFIXES, TEXT_SUFFIXES, FileFinder, FileNotFound, LeadsOutside
from prior_fast.prepare.paths import is_file
from prior_fast.prepare.split_words import is_split
from prior_fast.prepare.studies.builder import StudyBuilder
from prior_fast.prepare.studies.label_columns import LabelColumns
from prior_fast.prepare.studies.location import folder, location
from prior_fast.prepare.studies.plan import StudyPlan
from prior_fast.radiology.study import Report

HELP = "your own table of images and reports: csv, tsv, JSON lines or Parquet"
EXAMPLE = "--table studies.csv --images xrays"
DEFAULTS = {"sections": "tolerant", "min_sentences": 1}

# The usual names of each column, the first that the table has counts. Case, blanks, "_" and "-" do not matter.
COLUMNS = {
    "image": (
        *("image_path", "image", "images", "image_file", "image_paths", "path", "file", "filepath", "file_path"),
        *("filename", "file_name", "img", "img_path", "imgpath", "jpg_path", "dicom_path", "path_to_image"),
        *("image_id", "imageid", "dicom_id", "id", "name"),
    ),
    "report": (
        *("report", "report_text", "text", "report_path", "reports", "caption", "captions", "radiology_report"),
        *("note", "note_text", "description", "informe", "report_file", "txt_path"),
    ),
    "findings": ("findings", "finding", "section_findings", "findings_text", "hallazgos"),
    "impression": ("impression", "section_impression", "impressions", "conclusion", "impresion"),
    "study": ("study_id", "study", "study_uid", "studyinstanceuid", "accession", "accession_number", "uid", "exam_id"),
    "subject": ("subject_id", "subject", "patient_id", "patient", "patientid", "person_id", "mrn"),
    "split": ("split", "fold", "subset", "partition", "set"),
    "view": ("view", "view_position", "viewposition", "projection", "frontal_lateral", "frontal/lateral"),
}
_LONGEST_PATH = 400


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the files are and what the columns mean."""
    parser.add_argument("--table", required=True, type=location, metavar="FILE", help="the table")
    parser.add_argument("--images", required=True, type=location, metavar="DIR", help="folder of the images")
    parser.add_argument(
        "--reports", type=location, metavar="DIR", help="folder of report files (default: --images, then the table's)"
    )
    meaning = {
        "image": "paths of the images: one in a row, or a list; several rows of one study are its images",
        "report": "the report's text, or the path of a text file",
        "findings": "the findings, where they have a column of their own",
        "impression": "the impression, where it has a column of its own",
        "study": "name of the study (default: each row is a study)",
        "subject": "name of the subject (default: each study is a subject)",
        "split": "train, validate or test, or usual names of them (default: drawn by a hash of the subject)",
        "view": "the view: only AP, PA and frontal are kept (default: all images are)",
    }
    for name, what in meaning.items():
        parser.add_argument(f"--{name}", metavar="COLUMN", help=f"{what}; found by usual names")
    parser.add_argument(
        "--labels",
        metavar="COLUMN[,COLUMN]",
        help="labels: one column with A|B, or several, each a class with 1, 0, -1 or blank (default: CheXpert's)",
    )


@dataclass(frozen=True)
class _Named:
    """The names of the columns; None where there is none."""

    image: str
    report: str | None
    findings: str | None
    impression: str | None
    study: str | None
    subject: str | None
    split: str | None
    view: str | None


def read(
    table: str,
    images: str,
    reports: str | None = None,
    image: str | None = None,
    report: str | None = None,
    findings: str | None = None,
    impression: str | None = None,
    study: str | None = None,
    subject: str | None = None,
    split: str | None = None,
    view: str | None = None,
    labels: str | None = None,
) -> StudyPlan:
    """Read the table.

    Args:
        table: the file; the other arguments are as in `add_options`.

    Raises:
        UsageError: a file or a column is missing, or a cell can't be used.
    """
    rows = read_table(Path(table))
    root = folder("--images", images)
    given = {"image": image, "report": report, "findings": findings, "impression": impression}
    given |= {"study": study, "subject": subject, "split": split, "view": view}
    named = _columns(rows, given)
    label_columns = LabelColumns.of(rows, labels)
    builder = StudyBuilder(root, folder("--reports", reports) if reports else root, label_columns.classes)
    finder = _ReportFiles(rows.path, builder, reports is not None)
    if split is None and named.split and not any(is_split(cell) for cell in rows.texts(named.split)):
        builder.notes.append(f"column {named.split} names no split (train, validate, test) and was not used")
        named = replace(named, split=None)
    columns = {name: _cells(rows, column) for name, column in vars(named).items()}
    for place, line in enumerate(rows.lines):
        cells = {name: values[place] for name, values in columns.items()}
        paths = _paths(cells["image"])
        name = cell_text(cells["study"]) or (f"row {line}" if named.study or not paths else paths[0])
        if not paths:
            builder.reject(name, f"{rows.path.name}, line {line}", f"{named.image} is blank")
            continue
        try:
            report_of_row = _report(cells, named, finder)
        except LeadsOutside as error:
            builder.refuse(name, cell_text(cells["report"]) or "", str(error))
            continue
        builder.add(
            name,
            paths,
            report_of_row,
            subject=cell_text(cells["subject"]) or "",
            split=cell_text(cells["split"]),
            view=cell_text(cells["view"]),
            labels=label_columns.row(place, line),
        )
    builder.understood = [(what, f"column {column}") for what, column in vars(named).items() if column]
    builder.understood.insert(0, ("table", f"{rows.path.name}: {len(rows)} rows"))
    if rows.encoding not in ("", "utf-8"):
        builder.notes.append(f"{rows.path} is not UTF-8 and was read as {rows.encoding}")
    if named.study is None:
        builder.notes.append("no column names the study: each row is a study of its own (--study COLUMN)")
    if named.view is None:
        builder.notes.append("no column names the view: all images count as frontal (--view COLUMN)")
    return builder.plan([rows.path], f"{rows.path.name}")


def _columns(table: Table, given: dict[str, str | None]) -> _Named:
    found = {
        name: table.find(f"--{name}", column, COLUMNS[name], required=name == "image") for name, column in given.items()
    }
    named_sections = given["findings"] or given["impression"]
    if named_sections or (given["report"] is None and found["findings"] and found["impression"]):
        found["report"] = given["report"]
    elif found["report"]:
        # A lone "findings" beside a report is often a list of labels.
        found["findings"] = found["impression"] = None
    elif not (found["findings"] or found["impression"]):
        table.find("--report", None, COLUMNS["report"])
    taken = [column for column in found.values() if column]
    if twice := [column for column in taken if taken.count(column) > 1]:
        options = [f"--{name}" for name, column in found.items() if column == twice[0]]
        raise UsageError(f"{table.path}: column {twice[0]} would be {' and '.join(options)}; name each")
    return _Named(**found)  # type: ignore[arg-type]


def _cells(table: Table, column: str | None) -> Sequence[Any]:
    return table.columns[column] if column else [None] * len(table)


def _paths(cell: Any) -> list[str]:
    """The paths of a cell: a list, the text of one, several between ";" or "|" (or "," after endings), or one path."""
    if isinstance(cell, str):
        cell = shown_list(cell)
    if isinstance(cell, (list, tuple)):
        return [text for value in cell if (text := cell_text(value))]
    text = cell_text(cell)
    if text is None:
        return []
    for separator in (";", "|", ","):
        parts = [part.strip() for part in text.split(separator) if part.strip()]
        if len(parts) > 1 and (separator != "," or all(part.lower().endswith(IMAGE_SUFFIXES) for part in parts)):
            return parts
    return [text]


class _ReportFiles:
    """Finds the files that report cells name: in the folder of the reports, then beside the table."""

    def __init__(self, table: Path, builder: StudyBuilder, given: bool) -> None:
        self.given = given
        self.finder, self.beside = builder.report_files, FileFinder(table.absolute().parent, TEXT_SUFFIXES)
        builder.beside = self.beside.root

    def report(self, cell: str) -> Report:
        """A text, or the file that a path names: one of a usual ending, or one word if a folder of reports is given.

        Raises:
            LeadsOutside: the path leads outside of the folder of the reports.
        """
        short = "\n" not in cell and len(cell) < _LONGEST_PATH
        is_path = cell.lower().endswith(TEXT_SUFFIXES) or (self.given and not any(map(str.isspace, cell)))
        if not (short and is_path):
            return Report(text=cell)
        try:
            return Report(self.finder.find(cell))
        except FileNotFound as error:
            beside = self._file_beside(cell)
            if beside is None and isinstance(error, LeadsOutside):
                raise
        return Report(cell if beside is None else str(beside))

    def _file_beside(self, cell: str) -> Path | None:
        try:
            path = self.beside.exact(cell)
        except FileNotFound:
            return None
        return self.beside.root / path if path is not None and is_file(self.beside.root / path) else None


def _report(cells: dict[str, Any], named: _Named, files: _ReportFiles) -> Report | None:
    """The report of a row; None if its cells are blank."""
    if named.report is not None:
        text = _text(cells["report"])
        return files.report(text) if text else None
    sections = tuple(text for name in ("findings", "impression") if (text := _text(cells[name])))
    return Report(sections=sections) if sections else None


def _text(cell: Any) -> str:
    return "" if cell is None or cell != cell else str(cell).strip("\r\n\t ") and str(cell)
