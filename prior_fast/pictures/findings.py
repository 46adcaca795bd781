"""Finding by keywords which finding a sentence names."""

from prior_fast.radiology.labels import FIVE_CLASSES

FINDINGS = (*FIVE_CLASSES, "Pneumothorax")
KEYWORDS = {
    "Atelectasis": ("atelecta",),
    "Cardiomegaly": ("cardiomegal", "enlarged heart", "heart is enlarged", "enlarged cardiac", "cardiac enlargement"),
    "Consolidation": ("consolidat",),
    "Edema": ("edema", "oedema"),
    "Pleural Effusion": ("effusion",),
    "Pneumothorax": ("pneumothora",),
}
SEVERAL, OTHER = "several findings", "other"


def named_finding(sentence: str) -> str:
    """The finding that a sentence names, present or denied; "several findings" or "other"."""
    text = sentence.lower()
    named = [name for name in FINDINGS if any(keyword in text for keyword in KEYWORDS[name])]
    return named[0] if len(named) == 1 else (SEVERAL if named else OTHER)
