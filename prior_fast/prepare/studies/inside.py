"""Studies whose files are in the folders that the user gave."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from prior_fast.prepare.paths import BAD_NAME, OUTSIDE, bad_name, path_inside
from prior_fast.radiology.study import AnnotationRow, Rejection, Study, StudyImage


@dataclass(frozen=True)
class Folders:
    """The folders in which the files of studies are: images with masks, reports, and further reports.

    Attributes:
        beside: a folder whose reports are named by absolute paths; None if there is none.
    """

    images: Path
    reports: Path
    beside: Path | None = None

    def only_inside(self, studies: Iterable[Study]) -> tuple[list[Study], list[Rejection]]:
        """Leave out studies, images and masks whose path leads outside of its folder or whose name can't be used.

        Nothing of them is opened.

        Returns:
            The studies that are left, and a rejection of each other one. Those of images and masks are in `left_out`.
        """
        found = [self._kept(study) for study in studies]
        kept = [study for study in found if isinstance(study, Study)]
        return kept, [rejection for rejection in found if isinstance(rejection, Rejection)]

    def _kept(self, study: Study) -> Study | Rejection:
        for name in (study.name, study.subject):
            if wrong := _bad(name):
                return study.reject(study.place, *wrong, broken=True, whole=True)
        report = study.report.path
        if report and (wrong := _wrong(self.reports, report)) and not self._is_beside(report):
            return study.reject(report, *wrong, broken=True, whole=True)
        images: list[StudyImage] = []
        left_out: list[Rejection] = []
        for image in study.images:
            if wrong := _wrong(self.images, image.path) or _bad(image.image_id):
                left_out.append(study.reject(image.path, *wrong, broken=True))
            else:
                images.append(image)
        if left_out and not images:
            return replace(left_out[0], whole_study=True)
        marks: list[AnnotationRow] = []
        for row in study.annotations:
            if row.mask and (wrong := _wrong(self.images, row.mask)):
                left_out.append(study.reject(row.mask, *wrong, broken=True))
            else:
                marks.append(row)
        if not left_out:
            return study
        return replace(study, images=tuple(images), annotations=tuple(marks), left_out=(*study.left_out, *left_out))

    def _is_beside(self, report: str) -> bool:
        return self.beside is not None and report.startswith("/") and _wrong(self.beside, report) is None


def _wrong(root: Path, path: str) -> tuple[str, str] | None:
    """Why a path must not be opened: the kind and the details of the reason."""
    # Most paths are plain; this decides without normalizing them.
    if (path.startswith("/") or ".." in path) and path_inside(root, path) is None:
        return OUTSIDE, ""
    return _bad(path)


def _bad(name: str) -> tuple[str, str] | None:
    reason = bad_name(name)
    return (BAD_NAME, f"({reason})") if reason else None
