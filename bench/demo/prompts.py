"""The prompts of the demo: sentences as radiologists write them, on each degree and place of a finding.

Findings of the lungs have the same places. If each finding had places of its own, as the lists of GLoRIA's evaluation
do, a place would count for a finding. On two other made-up datasets the least AUROC was 0.87 and 0.95 with these
prompts, and 0.81 and 0.88 with ten of `prompts=generated`.
"""

from itertools import product
from pathlib import Path

from prior_fast.files import write_json

DEGREES = ("Mild", "Moderate", "Severe")
PLACES = (
    *("right upper lobe", "right middle lobe", "right lower lobe"),
    *("left upper lobe", "left mid lung", "left lower lobe"),
)
SIZES, SIDES = ("Small", "Moderate", "Large"), ("right", "left")
PROMPTS: dict[str, list[str]] = {
    "Atelectasis": [f"{degree} atelectasis is observed in the {place}." for degree, place in product(DEGREES, PLACES)],
    "Cardiomegaly": [
        *(f"{degree} cardiomegaly is observed." for degree in DEGREES),
        *(f"{degree} enlargement of the cardiac silhouette is seen." for degree in DEGREES),
    ],
    "Consolidation": [
        f"{degree} consolidation is observed in the {place}." for degree, place in product(DEGREES, PLACES)
    ],
    "Edema": [
        *(f"{degree} pulmonary edema is observed." for degree in DEGREES),
        *(f"{degree} bilateral pulmonary edema is observed." for degree in DEGREES),
    ],
    "Pleural Effusion": [f"{size} {side} pleural effusion is observed." for size, side in product(SIZES, SIDES)],
}


def path_of(folder: Path) -> Path:
    """The file of the prompts of a run's evaluations in `folder`."""
    return folder / "prompts.json"


def write_prompts(folder: Path) -> None:
    """Write the prompts into `folder`, for `prompts=FILE`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path_of(folder), PROMPTS)
