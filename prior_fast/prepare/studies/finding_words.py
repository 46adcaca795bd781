"""Words of public datasets for findings, and the CheXpert labels that they mean. Our choice; the datasets have none."""

import re
from collections.abc import Iterable

_WORDS: dict[str, tuple[str, ...]] = {
    "Atelectasis": ("atelectasis", "atelectases", "pulmonary atelectasis"),
    "Cardiomegaly": ("cardiomegaly", "enlarged heart", "cardiac shadow enlarged"),
    "Consolidation": ("consolidation", "air bronchogram", "alveolar pattern"),
    "Edema": ("edema", "pulmonary edema", "kerley lines"),
    "Enlarged Cardiomediastinum": ("mediastinal enlargement", "superior mediastinal enlargement"),
    "Fracture": ("fracture", "fractures, bone", "rib fracture", "vertebral fracture", "clavicle fracture"),
    "Lung Lesion": (
        "nodule",
        "multiple nodules",
        "mass",
        "pulmonary mass",
        "lung neoplasms",
        "granuloma",
        "cavitation",
    ),
    "Lung Opacity": (
        "opacity",
        "infiltrate",
        "infiltrates",
        "airspace disease",
        "increased density",
        "ground glass pattern",
    ),
    "No Finding": ("normal", "no finding", "no findings"),
    "Pleural Effusion": (
        "pleural effusion",
        "costophrenic angle blunting",
        "loculated pleural effusion",
        "hydropneumothorax",
    ),
    "Pleural Other": (
        "pleural thickening",
        "apical pleural thickening",
        "pleural plaques",
        "calcified pleural plaques",
    ),
    "Pneumonia": ("pneumonia", "atypical pneumonia", "viral pneumonia", "bronchopneumonia"),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "Support Devices": (
        *("medical device", "implanted medical device", "catheters, indwelling", "tube, inserted", "pacemaker"),
        *("dual chamber device", "single chamber device", "endotracheal tube", "nsg tube", "chest drain tube"),
        *("tracheostomy tube", "central venous catheter", "reservoir central venous catheter"),
        *("central venous catheter via jugular vein", "central venous catheter via subclavian vein"),
        *("central venous catheter via umbilical vein", "electrical device", "stents"),
    ),
}
_MEANS: dict[str, list[str]] = {}
for _label, _words in _WORDS.items():
    for _word in _words:
        _MEANS.setdefault(_word, []).append(_label)
# "atelectasis basal bilateral", "laminar atelectasis": a finding with its place or kind.
_INSIDE = re.compile(r"\b(atelectasis|cardiomegaly|pleural effusion|pneumonia|pneumothorax|consolidation)\b")


def chexpert_labels(findings: Iterable[str]) -> dict[str, float]:
    """The CheXpert labels that the findings mean, each 1. A finding that is not named is blank: it was not sought.

    Args:
        findings: words of the dataset, such as "Cardiomegaly/mild" or "laminar atelectasis"; what follows a "/" is a
            property.
    """
    labels: dict[str, float] = {}
    for finding in findings:
        word = finding.split("/")[0].strip().lower()
        meant = _MEANS.get(word) or [label for found in _INSIDE.findall(word) for label in _MEANS[found]]
        labels |= dict.fromkeys(meant, 1.0)
    return labels
