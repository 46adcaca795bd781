"""A dry run: what the tables mean, and a few studies in full, before hours of work."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from prior_fast.errors import UsageError
from prior_fast.prepare.paths import irregular
from prior_fast.prepare.studies.options import PrepareOptions, check_options
from prior_fast.prepare.studies.plan import StudyPlan
from prior_fast.prepare.studies.read_report import read_report
from prior_fast.radiology.study import Rejection, Study
from prior_fast.radiology.xray import UnreadableImage, read_xray

_BITS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}


@dataclass(frozen=True)
class CheckedStudy:
    """A study and what was read of it: pairs of texts."""

    name: str
    rows: list[tuple[str, str]]


@dataclass(frozen=True)
class Checked:
    """The result of a dry run.

    Attributes:
        understood: what was found in which column or folder.
        left_out: reason, studies, files and an example.
        total: the number of studies that the tables permit.
    """

    understood: list[tuple[str, str]]
    studies: list[CheckedStudy]
    notes: list[str]
    left_out: list[tuple[str, int, int, str]]
    total: int


def check_source(options: PrepareOptions, count: int) -> Checked:
    """Read the tables, and `count` studies, spread over all of them.

    Raises:
        UsageError: an option or the source can't be used.
    """
    check_options(options)
    if count < 1:
        raise UsageError(f"--check must be 1 or more, not {count}")
    plan = options.source.read()
    step = max(1, len(plan.studies) // count)
    studies = [_checked(options, plan, study) for study in plan.studies[::step][:count]]
    return Checked(
        [*plan.understood, ("labels", ", ".join(plan.classes) or "none")],
        studies,
        plan.notes,
        _count(plan.rejections),
        len(plan.studies),
    )


def describe_image(path: Path) -> str:
    """The format, bits and size of an image file: "PNG, 16 bits, 2048 x 2500"; or the reason why it can't be read."""
    if reason := irregular(path):
        return f"not readable: {reason}"
    try:
        _, (width, height) = read_xray(path)
    except UnreadableImage as error:
        return f"not readable: {error}"
    try:
        header = dcmread(path, stop_before_pixels=True)
        return f"DICOM, {header.BitsStored} bits, {header.Columns} x {header.Rows}"
    except InvalidDicomError:
        pass
    try:
        with Image.open(path) as image:
            return f"{image.format}, {_BITS.get(image.mode, 8)} bits, {width} x {height}"
    except UnidentifiedImageError:
        # A DICOM file without preamble, or a TIFF that Pillow lacks.
        return f"{width} x {height}"


def _checked(options: PrepareOptions, plan: StudyPlan, study: Study) -> CheckedStudy:
    rows = [("subject", study.subject or str(study.subject_id)), ("split", study.split)]
    rows += [("image", f"{image.path}: {describe_image(plan.images / image.path)}") for image in study.images]
    report = study.report
    kind = report.path or ("sections of the table" if report.sections is not None else "text of the table")
    rows.append(("report", kind))
    found = read_report(plan.reports, study, options.min_sentences, options.sections)
    if found.rejection:
        rows.append(("left out", found.rejection.reason))
    rows += [(f"sentence {number}", sentence) for number, sentence in enumerate(found.sentences, 1)]
    if study.labels:
        known = [f"{name} {value:g}" for name, value in zip(plan.classes, study.labels) if value is not None]
        rows.append(("labels", ", ".join(known) or "all blank"))
    return CheckedStudy(study.name or str(study.study_id), rows)


def _count(rejections: list[Rejection]) -> list[tuple[str, int, int, str]]:
    kinds = dict.fromkeys(rejection.kind for rejection in rejections)
    rows = []
    for kind in kinds:
        own = [rejection for rejection in rejections if rejection.kind == kind]
        studies = sum(rejection.whole_study for rejection in own)
        rows.append((kind, studies, len(own) - studies, f"{own[0].file} {own[0].detail}".strip()))
    return rows
