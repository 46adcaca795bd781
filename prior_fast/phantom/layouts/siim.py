"""The phantom in the layout of SIIM-ACR Pneumothorax Segmentation: pneumothoraces with masks."""

from pathlib import Path
from typing import Any

from prior_fast.phantom.contents import stream
from prior_fast.phantom.generate import contents_of
from prior_fast.phantom.layouts.dicom import make_uid, make_uuid, write_dicom
from prior_fast.phantom.layouts.square import draw_square, parts_of
from prior_fast.phantom.mimic import Place, Row, place_studies, write_table
from prior_fast.radiology.rle import encode_rle

SIZE = 1024
FOLDERS = ("dicom-images-train",)
_FINDING = "Pneumothorax"
# 10 % of the phantom's studies have a pneumothorax, but 22 % of SIIM-ACR's: 0.1 / (0.1 + 0.9 * 0.39) = 0.22.
_KEPT_OF_OTHERS = 0.39
# As in the original, the name and the values of the second column begin with a blank.
_COLUMNS = ("ImageId", " EncodedPixels")


def choose_studies(seed: int, studies: int) -> list[Place]:
    """All studies with a pneumothorax and some others, so that 22 % have one. A shorter choice begins a longer one."""
    drawn = 3 * studies
    while True:
        places = [place for place in place_studies(seed, drawn) if _is_chosen(seed, place)]
        if len(places) >= studies:
            return places[:studies]
        drawn *= 2


def _is_chosen(seed: int, place: Place) -> bool:
    if contents_of(seed, place).finding(_FINDING):
        return True
    return bool(stream(seed, 10, place.study).random() < _KEPT_OF_OTHERS)


def write_study(place: Place, root: Path, seed: int, size: int) -> list[Row]:
    """Draw one study, write its DICOM file and return its rows, one for each connected part of the mask."""
    rng = stream(seed, 9, place.study)
    contents, drawing = draw_square(place, seed, size)
    study, series, image = make_uid(rng), make_uid(rng), make_uid(rng)
    facts = {
        "PatientID": str(make_uuid(rng)),
        "PatientAge": f"{int(rng.integers(18, 91)):03d}Y",
        "PatientSex": str(rng.choice(["F", "M"])),
        "SeriesDescription": "view: PA",
        "PixelSpacing": [0.168, 0.168],
    }
    folder = root / FOLDERS[0] / study / series
    folder.mkdir(parents=True)
    write_dicom(folder / f"{image}.dcm", drawing.pixels, (study, series, image), facts)
    parts = parts_of(drawing.masks[_FINDING]) if contents.finding(_FINDING) else []
    values = [encode_rle(part) for part in parts] or ["-1"]
    return [dict(zip(_COLUMNS, (image, f" {value}"))) for value in values]


def write_tables(root: Path, studies: list[list[Row]]) -> None:
    """Write train-rle.csv."""
    write_table(root / "train-rle.csv", _COLUMNS, (row for study in studies for row in study))


def summarize(studies: list[list[Row]]) -> dict[str, Any]:
    """Counts for report.json."""
    positive = [rows for rows in studies if rows[0][_COLUMNS[1]] != " -1"]
    return {"images": len(studies), "positive": len(positive), "masks": sum(map(len, positive))}
