"""PadChest: 16-bit PNG files and Spanish reports in one csv."""

import argparse
from pathlib import Path

from prior_fast.prepare.any_table import read_table
from prior_fast.prepare.label_words import split_names
from prior_fast.prepare.studies.builder import StudyBuilder
from prior_fast.prepare.studies.finding_words import chexpert_labels
from prior_fast.prepare.studies.location import folder, location
from prior_fast.prepare.studies.plan import StudyPlan
from prior_fast.radiology.labels import CHEXPERT_LABELS
from prior_fast.radiology.study import Report

HELP = "PadChest: PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv and its 16-bit PNG files"
EXAMPLE = "--images padchest --table PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
# The reports are stemmed sentences separated by " . ", without headers; most have one or two.
DEFAULTS = {"sections": "whole", "min_sentences": 1}

_FRONTAL = {"PA": "PA", "AP": "AP", "AP_horizontal": "AP"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the files are."""
    parser.add_argument("--images", required=True, type=location, metavar="DIR", help="folder of the images")
    parser.add_argument("--table", required=True, type=location, metavar="FILE", help="the csv, also .gz")


def read(images: str, table: str) -> StudyPlan:
    """Read the csv. Labels are the findings that mean one of CheXpert's.

    Raises:
        UsageError: a file or a column is missing.
    """
    root, rows = folder("--images", images), read_table(Path(table))
    columns = rows.needed("ImageID", "StudyID", "PatientID", "Projection", "Report", "Labels")
    place = rows.find("ImageDir", None, ("ImageDir",), required=False)
    folders = rows.texts(place) if place else [None] * len(rows)
    builder = StudyBuilder(root, classes=CHEXPERT_LABELS)
    for number, (name, study, subject, view, text, labels) in enumerate(zip(*columns)):
        if name is None or study is None:
            builder.reject(study or "", f"{rows.path.name}, line {rows.lines[number]}", "no ImageID or StudyID")
            continue
        path = f"{folders[number]}/{name}" if folders[number] else name
        builder.add(
            study,
            [path],
            None if text is None else Report(text=text),
            subject or "",
            view=_FRONTAL.get(view or "", view or "unknown"),
            labels=chexpert_labels(split_names(labels)),
        )
    builder.understood = [("table", f"{rows.path}: {len(rows)} images"), ("images", str(root))]
    return builder.plan([rows.path], rows.path.name)
