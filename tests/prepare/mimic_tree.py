"""A small tree in MIMIC-CXR-JPG's layout, built study by study, for tests of preparing."""

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prior_fast.prepare.studies.options import PrepareOptions
from prior_fast.prepare.studies.plan import Source
from prior_fast.radiology.labels import CHEXPERT_LABELS

METADATA = ("dicom_id", "subject_id", "study_id", "ViewPosition", "Rows", "Columns")
SPLIT = ("dicom_id", "study_id", "subject_id", "split")
ANNOTATIONS = ("dicom_id", "finding", "side", "severity", "x", "y", "width", "height", "mask")
SENTENCES = (
    "The heart is normal in size.",
    "There is a 1.5 cm nodule in the left lung.",
    "No pleural effusion is seen.",
    "Dr. ___ was told at 3:15 p.m. by phone.",
    "No pneumothorax.",
    "The lungs are clear.",
)


def report_text(sentences: int) -> str:
    """A report with a given number of sentences: all but the last are findings, the last is the impression."""
    body = [SENTENCES[index % len(SENTENCES)] for index in range(sentences)]
    findings, impression = " ".join(body[:-1]), body[-1] if body else ""
    head = f"{'FINAL REPORT':>45}\n EXAMINATION:  CHEST\n \n"
    return f"{head} FINDINGS: \n \n {findings}\n \n IMPRESSION: \n \n {impression}\n"


@dataclass
class MimicTree:
    """Rows of the tables that will be written, and the files already written under `root`."""

    root: Path
    metadata: list[dict[str, object]] = field(default_factory=list)
    split: list[dict[str, object]] = field(default_factory=list)
    chexpert: list[dict[str, object]] = field(default_factory=list)
    annotations: list[dict[str, object]] = field(default_factory=list)

    def add(
        self,
        study_id: int,
        split: str = "train",
        views: tuple[str, ...] = ("PA",),
        sentences: int = 5,
        labels: dict[str, float] | None = None,
        size: tuple[int, int] = (60, 48),
    ) -> list[Path]:
        """Write a study's files and add its rows; returns the paths of its images."""
        subject_id = 10_000_000 + study_id % 1000
        folder = self.root / f"files/p10/p{subject_id}/s{study_id}"
        folder.mkdir(parents=True)
        folder.with_suffix(".txt").write_text(report_text(sentences), encoding="utf-8")
        paths = []
        for number, view in enumerate(views):
            dicom_id = f"{study_id:08x}-{number:08x}"
            pixels = np.random.default_rng([study_id, number]).integers(0, 256, (size[1], size[0]), np.uint8)
            paths.append(folder / f"{dicom_id}.jpg")
            Image.fromarray(pixels).save(paths[-1], quality=90)
            ids = {"dicom_id": dicom_id, "subject_id": subject_id, "study_id": study_id}
            self.metadata.append({**ids, "ViewPosition": view, "Rows": size[1], "Columns": size[0]})
            self.split.append({**ids, "split": split})
        self.chexpert.append({"subject_id": subject_id, "study_id": study_id, **(labels or {})})
        return paths

    def report(self, study_id: int) -> Path:
        """Path of a study's report."""
        return next(self.root.glob(f"files/p10/*/s{study_id}.txt"))

    def write(self) -> Path:
        """Write the tables; returns the root."""
        write_csv(self.root / "mimic-cxr-2.0.0-metadata.csv", METADATA, self.metadata)
        write_csv(self.root / "mimic-cxr-2.0.0-split.csv", SPLIT, self.split)
        labels = ("subject_id", "study_id", *CHEXPERT_LABELS)
        write_csv(self.root / "mimic-cxr-2.0.0-chexpert.csv", labels, self.chexpert)
        if self.annotations:
            write_csv(self.root / "annotations.csv", ANNOTATIONS, self.annotations)
        return self.root


def mimic_options(images: Path, out: Path, reports: Path | None = None, **settings: Any) -> PrepareOptions:
    """The options of `prior-fast prepare mimic`."""
    arguments = {"images": str(images), "reports": None if reports is None else str(reports)}
    return PrepareOptions(Source("mimic", arguments), out, **settings)


def write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, object]]) -> None:
    """Write the rows' `columns` as csv; missing cells are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def small_tree(root: Path, studies: int = 20) -> MimicTree:
    """A tree whose studies all pass: every fourth in validate, every fifth in test, the others in train."""
    tree = MimicTree(root)
    for index in range(studies):
        split = "validate" if index % 4 == 3 else "test" if index % 5 == 4 else "train"
        views = ("AP", "PA") if index % 3 == 0 else ("PA",)
        tree.add(50_000_000 + index, split, views, 4 + index % 5, {"Edema": (1.0, 0.0, -1.0)[index % 3]})
    tree.write()
    return tree


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of each file of a dataset except report.json, which contains times."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "report.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rejected(folder: Path) -> list[dict[str, str]]:
    """The rows of a dataset's rejected.csv."""
    with (folder / "rejected.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
