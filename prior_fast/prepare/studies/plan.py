"""The studies that a source has, and the source itself: a layout with its arguments."""

import hashlib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from prior_fast.errors import UsageError
from prior_fast.prepare.studies import layouts
from prior_fast.prepare.studies.inside import Folders
from prior_fast.radiology.labels import CHEXPERT_LABELS
from prior_fast.radiology.study import SPLITS, Rejection, Study


@dataclass(frozen=True)
class StudyPlan:
    """The studies to prepare.

    Attributes:
        images, reports: the folders to which the paths of images and reports are relative.
        studies: sorted by split (train, validate, test), then by number; numbers are unique.
        rejections: studies and images that are left out because of the tables.
        notes: lines for the user.
        digest: SHA-256 of the tables.
        classes: the names of the labels.
        understood: what was found in which column or folder, for `--check`.
        beside: a further folder of reports, named by absolute paths; None if there is none.
    """

    images: Path
    reports: Path
    studies: list[Study]
    rejections: list[Rejection]
    notes: list[str]
    digest: str
    classes: tuple[str, ...] = CHEXPERT_LABELS
    understood: Sequence[tuple[str, str]] = ()
    beside: Path | None = None

    def by_id(self) -> dict[int, Study]:
        """The studies, by their number."""
        return {study.study_id: study for study in self.studies}


@dataclass(frozen=True)
class Source:
    """A layout of files and the arguments that say where they are.

    Attributes:
        layout: the name of a module in `prior_fast/prepare/studies/layouts/`.
        arguments: the arguments of its function `read`, of types that JSON has; folders and files as texts.
    """

    layout: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> StudyPlan:
        """The plan of this source, without what leads outside of its folders.

        Raises:
            UsageError: a file is missing or can't be used.
        """
        plan: StudyPlan = layout_module(self.layout).read(**self.arguments)
        studies, rejected = Folders(plan.images, plan.reports, plan.beside).only_inside(plan.studies)
        return replace(plan, studies=studies, rejections=[*plan.rejections, *rejected])


def layout_names() -> list[str]:
    """The names of all layouts, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(layouts.__path__))


def layout_module(name: str) -> ModuleType:
    """The module of a layout.

    Raises:
        UsageError: there is no such layout.
    """
    if name not in layout_names():
        raise UsageError(f"there is no layout {name!r}; there are {', '.join(layout_names())}")
    return importlib.import_module(f"{layouts.__name__}.{name}")


def argument_names(module: ModuleType) -> list[str]:
    """The names of the arguments of a layout's function `read`."""
    return list(inspect.signature(module.read).parameters)


def sorted_studies(studies: Sequence[Study]) -> list[Study]:
    """Sorted by split, then by number."""
    return sorted(studies, key=lambda study: (SPLITS.index(study.split), study.study_id))


def digest(paths: Sequence[Path | None]) -> str:
    """SHA-256 over the contents of the files that are there and can be read."""
    return hashlib.sha256(repr([path and _digest(path) for path in paths]).encode()).hexdigest()


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
