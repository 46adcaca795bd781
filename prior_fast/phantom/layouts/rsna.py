"""The phantom in the layout of RSNA Pneumonia Detection, stage 2: consolidations with boxes."""

from collections import Counter
from pathlib import Path
from typing import Any

from prior_fast.phantom.contents import stream
from prior_fast.phantom.layouts.dicom import make_uid, make_uuid, write_dicom
from prior_fast.phantom.layouts.square import draw_square, parts_of
from prior_fast.phantom.mimic import Place, Row, box, place_studies, write_table

SIZE = 1024
FOLDERS = ("stage_2_train_images",)
_FINDING = "Consolidation"


def choose_studies(seed: int, studies: int) -> list[Place]:
    """All studies. 22 % of them have a consolidation, the share of RSNA's images that have an opacity."""
    return place_studies(seed, studies)


def write_study(place: Place, root: Path, seed: int, size: int) -> list[Row]:
    """Draw one study, write its DICOM file and return its rows, one for each box."""
    rng = stream(seed, 9, place.study)
    contents, drawing = draw_square(place, seed, size)
    name = str(make_uuid(rng))
    uids = (make_uid(rng), make_uid(rng), make_uid(rng))
    facts = {
        "PatientID": name,
        "PatientAge": f"{int(rng.integers(18, 91)):03d}Y",
        "PatientSex": str(rng.choice(["F", "M"])),
        "ViewPosition": str(rng.choice(["AP", "PA"])),
    }
    write_dicom(root / FOLDERS[0] / f"{name}.dcm", drawing.pixels, uids, facts)
    parts = parts_of(drawing.masks[_FINDING]) if contents.finding(_FINDING) else []
    if parts:
        boxes = [dict(zip(("x", "y", "width", "height"), map(float, box(part)))) for part in parts]
        return [{"patientId": name, **place, "Target": 1, "class": "Lung Opacity"} for place in boxes]
    detail = "No Lung Opacity / Not Normal" if contents.findings else "Normal"
    return [{"patientId": name, "Target": 0, "class": detail}]


def write_tables(root: Path, studies: list[list[Row]]) -> None:
    """Write stage_2_train_labels.csv and stage_2_detailed_class_info.csv, which have a row for each box."""
    rows = [row for study in studies for row in study]
    for name, columns in (
        ("stage_2_train_labels.csv", ("patientId", "x", "y", "width", "height", "Target")),
        ("stage_2_detailed_class_info.csv", ("patientId", "class")),
    ):
        write_table(root / name, columns, ({column: row.get(column, "") for column in columns} for row in rows))


def summarize(studies: list[list[Row]]) -> dict[str, Any]:
    """Counts for report.json."""
    return {
        "images": len(studies),
        "positive": sum(rows[0]["Target"] for rows in studies),
        "boxes": sum(row["Target"] for rows in studies for row in rows),
        "detailed_classes": dict(sorted(Counter(rows[0]["class"] for rows in studies).items())),
    }
