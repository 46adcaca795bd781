"""The pointing game: does the attention of "<finding> is observed" peak inside the annotation of the finding?

Zhang et al., "Top-down neural attention by excitation backprop" (IJCV 2018), section 4.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from prior_fast.console import busy
from prior_fast.data.prepared_dataset import Annotation
from prior_fast.evaluation.attention_map import attention_maps, departure_maps, typical_maps, upsample
from prior_fast.evaluation.encode import Encoder

EXTRA_FINDING = "Pneumothorax"


class Marked(Protocol):
    """Images, uint8 [., 224, 224], with annotations."""

    @property
    def images(self) -> np.ndarray: ...

    def annotations(self) -> list[Annotation]: ...


@dataclass(frozen=True)
class Target:
    """All annotations of one finding in one image, as one mask: bool [224, 224]."""

    image_row: int
    finding: str
    mask: np.ndarray


def targets(annotations: Sequence[Annotation], findings: Sequence[str]) -> list[Target]:
    """The targets of `findings`: annotations of one finding in one image are joined, and empty masks left out."""
    names = {name.lower(): name for name in findings}
    masks: dict[tuple[int, str], np.ndarray] = {}
    for annotation in annotations:
        name = names.get(annotation.finding.lower())
        if name is None or not annotation.mask.any():
            continue
        key = (annotation.image_row, name)
        masks[key] = masks[key] | annotation.mask if key in masks else annotation.mask.astype(bool)
    return [Target(row, name, mask) for (row, name), mask in sorted(masks.items(), key=lambda item: item[0])]


def play(maps: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Score attention maps against masks, both [N, H, W]; returns float64 [N] each.

    hit: 1 if the map's maximum is in the mask; if there are several equal maxima, the share of them in the mask.
    chance: the mask's share of the image. contrast: mean attention inside the mask divided by that outside.
    """
    peak = maps == maps.max(axis=(1, 2), keepdims=True)
    inside, outside = masks.sum(axis=(1, 2)), (~masks).sum(axis=(1, 2))
    wide = maps.astype(np.float64)
    mean_inside = np.where(masks, wide, 0).sum(axis=(1, 2)) / inside
    mean_outside = np.where(masks, 0, wide).sum(axis=(1, 2)) / np.maximum(outside, 1)
    return {
        "hit": (peak & masks).sum(axis=(1, 2)) / peak.sum(axis=(1, 2)),
        "chance": masks.mean(axis=(1, 2)),
        "contrast": np.divide(mean_inside, mean_outside, out=np.full(len(maps), np.nan), where=mean_outside > 0),
    }


def pointing_game(encoder: Encoder, dataset: Marked, classes: Sequence[str], prompt: str) -> dict[str, Any] | None:
    """The pointing game on the annotated images of a dataset's split; None if there are no annotations.

    `hit_rate` uses the attention itself, `departure_hit_rate` its departure from the sentence's mean over these images
    (see `departure_maps` for the reason).

    classes: findings besides Pneumothorax; prompt: with "{}" for the finding's name.
    """
    findings = [*classes, *([] if EXTRA_FINDING in classes else [EXTRA_FINDING])]
    marked = targets(dataset.annotations(), findings)
    if not marked:
        return None
    prompts = encoder.texts([[prompt.replace("{}", name)] for name in findings], quiet=True).prototypes
    rows = sorted({target.image_row for target in marked})
    with busy("images of the pointing game", len(rows)) as advance:
        patches = encoder.images(dataset.images, rows, advance).patches
    typical = typical_maps(encoder.model, patches, prompts)
    size, parts = dataset.images.shape[1], []
    with busy("pointing game", len(marked)) as advance:
        for first in range(0, len(marked), encoder.batch_size):
            batch = marked[first : first + encoder.batch_size]
            image = torch.tensor([rows.index(target.image_row) for target in batch], device=patches.device)
            finding = torch.tensor([findings.index(target.finding) for target in batch], device=patches.device)
            masks = np.stack([target.mask for target in batch])
            maps = attention_maps(encoder.model, patches[image], prompts[finding])
            departure = departure_maps(encoder.model, patches[image], prompts[finding], typical[:, finding])
            encoder.require_finite("attention maps", maps, departure)
            hits = play(upsample(departure, size).cpu().numpy(), masks)["hit"]
            parts.append({**play(upsample(maps, size).cpu().numpy(), masks), "departure_hit": hits})
            advance(len(batch))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    names = np.array([target.finding for target in marked])
    result: dict[str, Any] = {
        "images": len({target.image_row for target in marked}),
        "overall": _summary(columns, np.full(len(marked), True)),
        "findings": {name: _summary(columns, names == name) for name in findings if (names == name).any()},
    }
    if encoder.model.config.layout == "released":
        result["note"] = "layout=released mixes positions with channels: the attention has no place in the image"
    return result


def _summary(columns: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, Any]:
    contrast = columns["contrast"][rows]
    return {
        "targets": int(rows.sum()),
        "hit_rate": float(columns["hit"][rows].mean()),
        "departure_hit_rate": float(columns["departure_hit"][rows].mean()),
        "chance": float(columns["chance"][rows].mean()),
        "attention_inside_over_outside": float(np.nanmean(contrast)) if np.isfinite(contrast).any() else None,
    }
