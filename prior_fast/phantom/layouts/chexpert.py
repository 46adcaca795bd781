"""The phantom in the layout of CheXpert-v1.0-small."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prior_fast.phantom.anatomy import Patient
from prior_fast.phantom.contents import FINDINGS, StudyContents, stream
from prior_fast.phantom.generate import contents_of, sample_views
from prior_fast.phantom.lateral import render_lateral
from prior_fast.phantom.mimic import Place, Row, place_studies, write_jpeg, write_table
from prior_fast.phantom.render import render_frontal
from prior_fast.phantom.report import write_report
from prior_fast.radiology.labels import CHEXPERT_TABLE_LABELS

SIZE = 390
FOLDERS = ("train", "valid")
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_TABLE_LABELS)
_PREFIX = "CheXpert-v1.0-small"


@dataclass(frozen=True)
class PatientStudy:
    """A study, and its number among those of its patient, from 1."""

    place: Place
    number: int


def choose_studies(seed: int, studies: int) -> list[PatientStudy]:
    """All studies. Those of the phantom's test split become valid, whose patients are not in train."""
    seen = Counter[int]()
    chosen = []
    for place in place_studies(seed, studies):
        seen[place.subject] += 1
        chosen.append(PatientStudy(place, seen[place.subject]))
    return chosen


def write_study(study: PatientStudy, root: Path, seed: int, size: int) -> list[Row]:
    """Draw one study, write its JPEG files and return its rows, one for each image."""
    place = study.place
    contents = contents_of(seed, place)
    patient = Patient.sample(stream(seed, 8, place.subject))
    views = sample_views(stream(seed, 7, place.study))
    key = "PA AND LAT" if "LATERAL" in views else views[0]
    valid = place.split == "test"
    labels = _certain(contents) if valid else write_report(stream(seed, 6, place.study), contents, key).labels
    person = stream(seed, 9, place.subject)
    facts = {"Sex": str(person.choice(["Female", "Male"])), "Age": int(person.integers(18, 91))}
    folder = f"{FOLDERS[valid]}/patient{place.subject + 1:05d}/study{study.number}"
    (root / folder).mkdir(parents=True)
    rows = []
    for number, view in enumerate(views):
        if view == "LATERAL":
            pixels = render_lateral(patient, contents, seed, place.study, number, size)
        else:
            pixels = render_frontal(patient, contents, seed, place.study, number, size).pixels
        side = "lateral" if view == "LATERAL" else "frontal"
        path = f"{folder}/view{number + 1}_{side}.jpg"
        write_jpeg(root / path, pixels)
        shown = {"Frontal/Lateral": side.capitalize(), "AP/PA": "" if view == "LATERAL" else view}
        rows.append({"Path": f"{_PREFIX}/{path}", **facts, **shown, **labels})
    return rows


def write_tables(root: Path, studies: list[list[Row]]) -> None:
    """Write train.csv and valid.csv."""
    for folder in FOLDERS:
        rows = (row for study in studies for row in study if row["Path"].startswith(f"{_PREFIX}/{folder}/"))
        write_table(root / f"{folder}.csv", COLUMNS, rows)


def summarize(studies: list[list[Row]]) -> dict[str, Any]:
    """Counts for report.json."""
    images = [row for study in studies for row in study]
    folder_of = [row["Path"].split("/")[1] for row in images]
    values = {"positive": 1.0, "negative": 0.0, "uncertain": -1.0}
    counts = {name: dict.fromkeys((*values, "blank"), 0) for name in CHEXPERT_TABLE_LABELS}
    for row in images:
        for name in CHEXPERT_TABLE_LABELS:
            kind = next((kind for kind, value in values.items() if row.get(name, "") == value), "blank")
            counts[name][kind] += 1
    return {
        "images": len(images),
        "frontal": sum(row["Frontal/Lateral"] == "Frontal" for row in images),
        **{folder: folder_of.count(folder) for folder in FOLDERS},
        "labels": counts,
    }


def _certain(contents: StudyContents) -> dict[str, float]:
    """Labels like those of radiologists who read the images: 1 or 0, never uncertain, never blank."""
    labels = dict.fromkeys(CHEXPERT_TABLE_LABELS, 0.0)
    labels |= {name: 1.0 for name in FINDINGS if contents.finding(name)}
    labels["Lung Opacity"] = max(labels[name] for name in ("Atelectasis", "Consolidation", "Edema"))
    labels["Support Devices"] = float(bool(contents.devices))
    labels["No Finding"] = float(not contents.findings)
    return labels
