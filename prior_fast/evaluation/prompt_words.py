"""Prompts made of a severity, a kind and a place of a finding, as GLoRIA's evaluation makes them (ICCV 2021).

The lists are our own, made of terms in radiology reports. GLoRIA's lists, written by a radiologist, are not copied.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

from prior_fast.errors import UsageError
from prior_fast.spelling import nearest

# For each class: severities, kinds, places. An empty word leaves its part out.
WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "Atelectasis": (
        ("", "mild", "minimal", "moderate"),
        ("atelectasis", "linear atelectasis", "subsegmental atelectasis", "lobar collapse", "volume loss"),
        ("at the lung bases", "in the left lower lobe", "in the right lower lobe", "in the right middle lobe"),
    ),
    "Cardiomegaly": (
        ("", "mild", "moderate", "severe", "stable"),
        ("cardiomegaly", "enlargement of the heart", "enlargement of the cardiac silhouette", "cardiac enlargement"),
        ("",),
    ),
    "Consolidation": (
        ("", "subtle", "dense", "new", "increasing"),
        ("consolidation", "airspace consolidation", "focal consolidation", "lobar consolidation"),
        ("in the left lower lobe", "in the right lower lobe", "in the right upper lobe", "at both lung bases"),
    ),
    "Edema": (
        ("", "mild", "moderate", "severe", "worsening"),
        ("pulmonary edema", "interstitial edema", "alveolar edema", "pulmonary vascular congestion"),
        ("", "in both lungs", "with a perihilar distribution"),
    ),
    "Pleural Effusion": (
        ("", "small", "trace", "moderate", "large"),
        ("pleural effusion", "layering effusion", "loculated pleural effusion", "subpulmonic effusion"),
        ("on the right", "on the left", "on both sides"),
    ),
    "Pneumonia": (
        ("", "early", "mild", "extensive"),
        ("pneumonia", "bronchopneumonia", "lobar pneumonia", "infectious infiltrate"),
        ("in the left lower lobe", "in the right lower lobe", "in the right middle lobe", "in both lungs"),
    ),
    "Pneumothorax": (
        ("", "tiny", "small", "moderate", "large"),
        ("pneumothorax", "apical pneumothorax", "basilar pneumothorax", "tension pneumothorax"),
        ("on the right", "on the left"),
    ),
}


def generated_prompts(name: str, count: int, seed: int) -> list[str]:
    """`count` different prompts of a class, or all that its words give. The draw depends only on seed and class.

    Raises:
        UsageError: there are no words for the class.
    """
    if name not in WORDS:
        hint = nearest(name, WORDS) or f": there are for {', '.join(WORDS)}"
        raise UsageError(f"prompts=generated: there are no words for {name!r}{hint}; or give prompts=FILE")
    texts = [_joined(words) for words in product(*WORDS[name])]
    drawn = np.random.default_rng([seed, list(WORDS).index(name)]).permutation(len(texts))[:count]
    return [texts[index] for index in drawn]


def _joined(words: Sequence[str]) -> str:
    return " ".join(word for word in words if word)
